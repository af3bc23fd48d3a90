"""`alphabet bench`: it measures a server, and finds out one that is wrong."""

import itertools
import json
import random
import socket
import struct
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphabet.cli import main
from alphabet.trial.figure import Figure, format_number, quantile
from alphabet.trial.flood import (
    FloodError,
    OutputBuffer,
    Sending,
    receive,
    sender,
)
from alphabet.trial.output_check import WrongOutputError, check_of
from alphabet.trial.self_bench import exchange, without_snapshots
from alphabet.trial.vote_load import SENDERS_MAX, Load, load_of
from tests.process import SECONDS_MAX, finish
from tests.votes import outputs, tally

loads = st.builds(
    Load,
    votes_per_turn=st.integers(1, 30),
    turns=st.integers(1, 3),
    senders=st.integers(1, 5),
    seed=st.integers(0, 9),
)


def taken(load: Load, seed: int) -> list[tuple[bytes, int]]:
    """Give a load's votes as a server might take them: each sender's in order."""
    rows = [
        [(bytes([letter]), votes) for _, letter, votes in row] * load.turns
        for row in load.frames().tolist()
    ]
    order = [number for number, row in enumerate(rows) for _ in row]
    random.Random(seed).shuffle(order)
    rests = [iter(row) for row in rows]
    return [next(rests[number]) for number in order]


def judge(load: Load, data: bytes, cuts: list[int] | None = None) -> None:
    """Feed a check, in pieces."""
    check = check_of(load)
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts or []), len(data)]
    for start, end in itertools.pairwise(places):
        check.feed(data[start:end])
    check.finish()


class TestLoad:
    """Which votes are sent."""

    @given(loads)
    def test_it_adds_up(self, load: Load) -> None:
        """Its own totals and number of votes are those of its frames."""
        votes = taken(load, seed=0)
        assert load.votes == len(votes)
        assert load.totals() == tally(votes)

    @given(st.integers(1, 50_000_000), st.sampled_from([1, 100, SENDERS_MAX]))
    def test_about_so_many(self, votes: int, senders: int) -> None:
        """A load has about as many votes as it was chosen for."""
        load = load_of(votes, senders)
        assert load.senders == senders
        assert abs(load.votes - max(votes, senders)) <= max(votes / 2, senders)


class TestCheck:
    """A check passes what is right, and only that."""

    @given(loads, st.integers(0, 99), st.lists(st.integers(0, 2000), max_size=3))
    def test_any_right_order_passes(
        self, load: Load, seed: int, cuts: list[int]
    ) -> None:
        """However senders are mixed and bytes are cut, right outputs pass."""
        judge(load, outputs(taken(load, seed)), cuts)

    @given(loads, st.integers(0, 99), st.data())
    def test_an_altered_byte_is_seen(
        self, load: Load, seed: int, data: st.DataObject
    ) -> None:
        """No single byte can be another."""
        right = bytearray(outputs(taken(load, seed)))
        place = data.draw(st.integers(0, len(right) - 1))
        right[place] ^= data.draw(st.integers(1, 255))
        with pytest.raises(WrongOutputError):
            judge(load, bytes(right))

    @given(loads, st.integers(0, 99), st.data())
    def test_a_lost_vote_is_seen(
        self, load: Load, seed: int, data: st.DataObject
    ) -> None:
        """A server that drops one vote, and sends right totals of the rest, is seen."""
        votes = taken(load, seed)
        del votes[data.draw(st.integers(0, len(votes) - 1))]
        with pytest.raises(WrongOutputError):
            judge(load, outputs(votes))

    @given(loads, st.integers(0, 99), st.data())
    def test_a_vote_counted_twice_is_seen(
        self, load: Load, seed: int, data: st.DataObject
    ) -> None:
        """So is one that counts a vote twice."""
        votes = taken(load, seed)
        place = data.draw(st.integers(0, len(votes) - 1))
        votes.insert(place, votes[place])
        with pytest.raises(WrongOutputError):
            judge(load, outputs(votes))

    @given(st.integers(2, 30), st.integers(2, 5), st.integers(0, 99), st.data())
    def test_a_sender_out_of_order_is_seen(
        self, votes_per_turn: int, senders: int, seed: int, data: st.DataObject
    ) -> None:
        """So is one that takes two votes of a sender in the wrong order."""
        load = Load(votes_per_turn, senders=senders)
        votes = taken(load, seed)
        place = data.draw(st.integers(0, len(votes) - 1))
        tag = votes[place][1] >> 22
        others = [
            other
            for other, (_, count) in enumerate(votes)
            if count >> 22 == tag and other != place
        ]
        other = data.draw(st.sampled_from(others))
        votes[place], votes[other] = votes[other], votes[place]
        with pytest.raises(WrongOutputError):
            judge(load, outputs(votes))

    def test_the_first_wrong_output_is_named(self) -> None:
        """The error says which output is wrong, counted from 1."""
        wrong = bytearray(outputs(taken(Load(10), 0)))
        wrong[13 * 4 + 12] ^= 1
        with pytest.raises(WrongOutputError, match="output 5 is not"):
            judge(Load(10), bytes(wrong))

    def test_half_an_output_is_none(self) -> None:
        """What ends in the middle of an output is not all."""
        with pytest.raises(WrongOutputError, match="9 whole outputs of 10 came"):
            judge(Load(10), outputs(taken(Load(10), 0))[:-1])


class TestDriver:
    """What sends and receives."""

    @pytest.mark.parametrize("senders", [1, 7])
    def test_every_sender_sends_its_votes(self, senders: int) -> None:
        """Over each connection go its own frames, all turns, and a half-close."""
        load = Load(50, turns=2, senders=senders)
        found = []
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            with sender(Sending(load, port, write_bytes=90)) as sending:
                accepted = [listener.accept()[0] for _ in range(senders)]
                sending.go()
                for each in accepted:
                    each.settimeout(SECONDS_MAX)
                    with each, each.makefile("rb") as stream:
                        found.append(stream.read())
                assert sending.await_end() >= 0
        rows = [row.tobytes() * 2 for row in load.frames()]
        assert sorted(found) == sorted(rows)

    def test_a_reset_is_no_receipt(self) -> None:
        """Senders that are cut off say so."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
            with sender(Sending(Load(50), port)) as sending:
                accepted, _ = listener.accept()
                linger = struct.pack("ii", 1, 0)
                accepted.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
                accepted.close()
                sending.go()
                with pytest.raises(FloodError, match="connection broke"):
                    sending.await_end()

    def test_a_server_that_is_not_there(self) -> None:
        """A sender that cannot connect says so before it is let go."""
        with socket.create_server(("127.0.0.1", 0)) as listener:
            port = listener.getsockname()[1]
        with pytest.raises(FloodError), sender(Sending(Load(1), port)):
            pass

    def test_outputs_that_end_early(self) -> None:
        """A sink that ends before all has come is no measurement."""
        ours, theirs = socket.socketpair()
        with ours, theirs:
            theirs.sendall(b"12345")
            theirs.shutdown(socket.SHUT_WR)
            with pytest.raises(FloodError, match="8 bytes too early"):
                receive(ours, OutputBuffer().view(13))

    def test_a_wrong_lone_output_is_seen(self) -> None:
        """A lone vote's output is compared too."""
        ours, theirs = socket.socketpair()
        sink, peer = socket.socketpair()
        with ours, theirs, sink, peer:
            peer.sendall(struct.pack(">IsQ", 9, b"a", 1))
            peer.sendall(struct.pack(">IsQ", 9, b"a", 3))
            thread = threading.Thread(target=theirs.recv, args=(18, socket.MSG_WAITALL))
            thread.start()
            with pytest.raises(WrongOutputError, match="output 2"):
                exchange(ours, sink, 3)
            thread.join()


class TestFigure:
    """What a run's numbers become."""

    def test_median_and_spread(self) -> None:
        """A figure has its median, its lowest and its highest value."""
        figure = Figure("speed", "votes/s", [30.0, 10.0, 20.0])
        assert (figure.median, figure.lowest, figure.highest) == (20, 10, 30)

    def test_figures_of_other_runs_have_no_ratio(self) -> None:
        """Figures that were not taken together are not divided."""
        with pytest.raises(ValueError, match="shorter"):
            Figure("x", "s", [1.0, 2.0]).ratios(Figure("x", "s", [1.0]))

    @given(st.lists(st.floats(0, 1e9), min_size=1), st.integers(1, 1000))
    def test_a_quantile_is_a_sample(self, samples: list[float], permille: int) -> None:
        """At least so many in a thousand are at or below it, and fewer below."""
        found = quantile(samples, permille)
        below = sum(sample < found for sample in samples)
        at_most = sum(sample <= found for sample in samples)
        assert found in samples
        assert 1000 * below < permille * len(samples) <= 1000 * at_most

    @pytest.mark.parametrize(
        ("number", "text"),
        [
            (1234567.8, "1,234,568"),
            (999.6, "1,000"),
            (0.18591, "0.186"),
            (3, "3"),
            (0, "0"),
        ],
    )
    def test_numbers_are_short(self, number: float, text: str) -> None:
        """A number has no more digits than it means."""
        assert format_number(number) == text


class TestCommand:
    """`alphabet bench` as people run it."""

    def test_it_measures(self, tmp_path: Path) -> None:
        """A small run gives every figure, each with a value from each run."""
        words = ("--votes", 3000, "--round-trips", 10, "--runs", 1, "--json")
        done = finish(
            "alphabet.cli", "bench", *words, variables={"TMPDIR": str(tmp_path)}
        )
        assert done.code == 0, done.stderr
        found = json.loads(done.stdout)
        units = ["votes/s", "bytes/vote", "ms", "ms", "ms", "s", "s"]
        assert [figure["unit"] for figure in found] == units
        assert all(len(figure["values"]) == 1 for figure in found)
        assert all(figure["median"] > 0 for figure in found)
        assert "3,000 votes replayed" in found[-1]["name"]
        assert not list(tmp_path.iterdir())

    def test_a_table_for_people(
        self, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The table has a head and a line for each figure."""
        figures = [Figure("speed", "votes/s", [1.0, 3.0]), Figure("size", "MB", [2.0])]
        monkeypatch.setattr(
            "alphabet.trial.self_bench.SelfBench.run", lambda _self: figures
        )
        assert main(["bench"]) == 0
        head, *rows = capsys.readouterr().out.splitlines()
        assert head.split() == ["median", "lowest", "highest"]
        assert [row.split() for row in rows] == [
            ["speed", "2", "1", "3", "votes/s"],
            ["size", "2", "2", "2", "MB"],
        ]

    @pytest.mark.parametrize(
        ("error", "code"), [(WrongOutputError("output 1"), 1), (FloodError("gone"), 3)]
    )
    def test_what_is_wrong_is_told(
        self,
        capsys: pytest.CaptureFixture[str],
        monkeypatch: pytest.MonkeyPatch,
        error: Exception,
        code: int,
    ) -> None:
        """Wrong outputs are exit code 1, and what cannot be measured is 3."""

        def fail(_self: object) -> list[Figure]:
            raise error

        monkeypatch.setattr("alphabet.trial.self_bench.SelfBench.run", fail)
        assert main(["bench"]) == code
        assert str(error) in capsys.readouterr().err

    def test_snapshots_come_back(self, tmp_path: Path) -> None:
        """Snapshots that were moved away are back, and none that came between."""
        snapshots = tmp_path / "data" / "snapshots"
        snapshots.mkdir(parents=True)
        (snapshots / "1").touch()
        with without_snapshots(snapshots.parent):
            assert not snapshots.exists()
            snapshots.mkdir()
            (snapshots / "2").touch()
        assert [each.name for each in snapshots.iterdir()] == ["1"]
