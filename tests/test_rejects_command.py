"""`alphabet-replay rejects`: what did not count, from whom and why."""

import csv
import io
import json
from collections.abc import Iterable
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from log.directory import DataDirectory
from log.log import Transaction
from log.row import Reject
from log.store import REJECTS, Change
from recovery.commands.rejects import escaped
from recovery.commands.rows import printable
from tests.machines import VOTES_META, VOTES_REJECT, key, write_votes
from tests.process import serving, submit
from tests.replaying import replay_here
from tests.votes import frame, wire

FAILED = Reject(
    time_ns=VOTES_REJECT.time_ns + 1_500_000_000,
    reason="compute",
    cause="OverflowError: a would pass 2^64-1",
    peer="",
    position=None,
    sequence=7,
    payload_bytes=5,
    payload=b"a\xff\xff\xff\xff",
)
NASTY = attrs.evolve(
    VOTES_REJECT,
    cause="\x1b[2Jgone\nand more\u202e",
    peer="\x1b]0;mine\x07",
    payload=b'\x1b[2J"\\' + bytes(250),
    payload_bytes=1000,
)


def add(path: Path, rejects: Iterable[Reject]) -> Path:
    """Put rejects into a log, behind the one that it has."""
    log = DataDirectory(path).open_log()
    try:
        log.commit(Transaction(rejects=tuple(rejects)))
    finally:
        log.close()
    return path


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Return a directory with a log of three rejects, the last one nasty."""
    return add(write_votes(tmp_path / "data").path, [FAILED, NASTY])


class TestFormats:
    """The same rejects for people and for programs."""

    def test_for_people(self, data: Path) -> None:
        """A line for each, oldest first: when, from whom or which event, what, why."""
        done = replay_here("rejects", data)
        assert (done.code, done.stderr) == (0, "")
        head, *lines = done.stdout.splitlines()
        assert head.split() == [
            *("NUMBER", "TIME", "FROM", "REASON"),
            *("BYTES", "PAYLOAD", "CAUSE"),
        ]
        first, second, third = (line.split(maxsplit=2) for line in lines)
        assert first[:2] == ["1", "2023-11-14T22:13:20.000000001Z"]
        assert " ".join(first[2].split()) == (
            '127.0.0.1:5000 at byte 18 decode 3 "abc" 3 bytes are no vote'
        )
        assert second[:2] == ["2", "2023-11-14T22:13:21.500000001Z"]
        assert " ".join(second[2].split()) == (
            r'event 7 compute 5 "a\xff\xff\xff\xff" '
            "OverflowError: a would pass 2^64-1"
        )
        assert third[0] == "3"
        assert r' 1000   "\x1b[2J\x22\x5c' in lines[2]
        assert len({line.index(x) for line, x in zip(lines, '"""', strict=True)}) == 1

    def test_a_terminal_is_safe(self, data: Path) -> None:
        """Whatever peers have sent, nothing printed does anything to a terminal."""
        for words in ([], ["--json"], ["--format", "csv"]):
            done = replay_here("rejects", data, *words)
            raw = set(done.stdout) - {"\n"}
            if words != ["--format", "csv"]:
                assert len(done.stdout.splitlines()) == (3 if words else 4)
            assert all(char.isprintable() for char in raw), words

    def test_for_programs(self, data: Path) -> None:
        """JSON has an object a line, with all that is known, the payload in hex."""
        found = [
            json.loads(line)
            for line in replay_here("rejects", data, "--json").stdout.splitlines()
        ]
        assert found[1] == {
            "number": 2,
            "time": "2023-11-14T22:13:21.500000001Z",
            "peer": None,
            "position": None,
            "sequence": 7,
            "reason": "compute",
            "cause": "OverflowError: a would pass 2^64-1",
            "payload_bytes": 5,
            "payload": "61ffffffff",
        }
        assert [each["number"] for each in found] == [1, 2, 3]
        assert (found[0]["sequence"], found[0]["position"]) == (None, 18)
        assert bytes.fromhex(found[2]["payload"]) == NASTY.payload
        assert found[2]["payload_bytes"] == 1000

    def test_for_tables(self, data: Path) -> None:
        """CSV has a column for each key of JSON, and nothing where there is none."""
        text = replay_here("rejects", data, "--format", "csv").stdout
        rows = list(csv.DictReader(io.StringIO(text)))
        lines = replay_here("rejects", data, "--json").stdout.splitlines()
        for row, line in zip(rows, lines, strict=True):
            assert row == {
                name: "" if value is None else printable(str(value))
                for name, value in json.loads(line).items()
            }

    @given(st.binary(max_size=300))
    def test_any_payload(self, payload: bytes) -> None:
        """What a table shows of a payload is ASCII that tells its first 16 bytes."""
        shown = escaped(payload)
        assert shown.isascii() or shown.endswith("…")
        inner = shown.removesuffix("…")[1:-1]
        assert '"' not in inner
        assert inner.encode().decode("unicode_escape").encode("latin-1") == payload[:16]
        assert shown.endswith("…") == (len(payload) > 16)


class TestWhich:
    """Which rejects are printed."""

    @pytest.mark.parametrize(
        ("last", "numbers"), [(1, [3]), (2, [2, 3]), (9, [1, 2, 3])]
    )
    def test_the_newest(self, data: Path, last: int, numbers: list[int]) -> None:
        """`--last N` leaves the newest N, still oldest first."""
        done = replay_here("rejects", data, "--json", "--last", last)
        found = [json.loads(line)["number"] for line in done.stdout.splitlines()]
        assert found == numbers

    def test_those_that_are_gone(
        self, data: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """That older ones are no longer kept is said, on standard error."""
        monkeypatch.setattr("log.log.REJECTS_KEPT_MAX", 3)
        add(data, [VOTES_REJECT])
        done = replay_here("rejects", data, "--json")
        found = [json.loads(line)["number"] for line in done.stdout.splitlines()]
        assert found == [2, 3, 4]
        assert done.stderr == "the oldest 1 are no longer kept\n"
        assert replay_here("rejects", data, "--last", 1).stderr == ""

    @pytest.mark.parametrize("words", [[], ["--json"], ["--format", "csv"]])
    def test_none(self, tmp_path: Path, words: list[str]) -> None:
        """Where there is none, that is said, and nothing is printed."""
        directory = DataDirectory.claim(tmp_path / "data")
        with directory.new_log(VOTES_META):
            pass
        directory.release()
        done = replay_here("rejects", directory.path, *words)
        assert (done.code, done.stdout) == (0, "")
        assert done.stderr == "no vote was refused, and none failed\n"


class TestWhere:
    """Which logs it works on."""

    def test_of_a_live_server(self, tmp_path: Path) -> None:
        """What a server refuses is there, with its peer, once it told that it is."""
        with serving(tmp_path) as server:
            # The receipt comes after the commit that has the reject.
            assert submit(server.port, wire([(b"a", 1)]) + frame(b"no vote"))
            done = replay_here("rejects", tmp_path / "data", "--json")
        found = json.loads(done.stdout)
        assert found["peer"].startswith("127.0.0.1:")
        assert (found["position"], found["reason"]) == (9, "decode")
        assert bytes.fromhex(found["payload"]) == b"no vote"

    def test_of_another_application(self, tmp_path: Path) -> None:
        """It needs no application, whoever's log it is."""
        meta = attrs.evolve(VOTES_META, application="tally")
        path = write_votes(tmp_path / "data", meta=meta).path
        assert replay_here("state", path).code == 3
        done = replay_here("rejects", path, "--json")
        assert json.loads(done.stdout)["cause"] == VOTES_REJECT.cause

    def test_of_a_damaged_log(self, data: Path) -> None:
        """A damaged last block is no hindrance; a damaged reject is damage."""
        log = DataDirectory(data).open_log()
        log.store.commit([Change("blocks", key(7), b"nonsense" * 20)], 0)
        log.close()
        done = replay_here("rejects", data, "--json")
        assert (done.code, len(done.stdout.splitlines())) == (0, 3)
        log = DataDirectory(data).open_log(is_damage_accepted=True)
        row = log.store.get(REJECTS, key(2))
        assert row is not None
        log.store.commit([Change(REJECTS, key(2), row[:-1] + b"?")], 0)
        log.close()
        done = replay_here("rejects", data)
        assert (done.code, done.stdout) == (1, "")
        assert "rejects row" in done.stderr
        assert "its checksum does not match" in done.stderr

    def test_of_none(self, tmp_path: Path) -> None:
        """A directory without a log is named."""
        done = replay_here("rejects", tmp_path)
        assert (done.code, done.stdout) == (3, "")
        assert f"{tmp_path}: there is no log in it" in done.stderr
