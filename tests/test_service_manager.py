"""What the server tells the service manager, on a real socket, by a real server."""

import contextlib
import io
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from alphabet.journal.journal import Journal
from alphabet.service.pulse import Pulse
from alphabet.service.service_manager import (
    ServiceManager,
    parse_notify_socket,
    parse_watchdog,
)
from alphabet.service.supervision import (
    LOOK_SECONDS_MIN,
    LOOKS_PER_TIMEOUT,
    look_seconds,
)
from log.lmdb_store import DATA_FILE
from tests.authority import Authority
from tests.injected import failing
from tests.inspection import totals
from tests.notified import Notified
from tests.process import ANY, ROOT, Server, environment, serving, submit
from tests.votes import make_votes, tally, wire

VOTES = make_votes(random.Random(21), 1000)
COUNTING = "STATUS=counting votes"
PINGS_PER_SECOND = 20
BLOCKS = 5
HANG_SECONDS = 2.5
PINGS_MAX = 4
"""A hanging commit's own beginning, a last turn, and those on the way."""

HANGUP_AT = """
import os, signal, sys
name = sys.argv.pop(1)
class Finder:
    def find_spec(self, module, path=None, target=None):
        if module == name:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), signal.SIGHUP)
sys.meta_path.insert(0, Finder())
from alphabet.program import run_alphabet
run_alphabet()
"""
"""Begins as an installed command does, and has SIGHUP come with an import."""


@contextlib.contextmanager
def hung_up(place: Path, module: str, variables: Mapping[str, str]) -> Iterator[Server]:
    """Give a server that a SIGHUP meets when it imports a module."""
    options = ["--in", ANY, "--http", "none", "--data-dir", str(place / "data")]
    stdout, stderr = place / "stdout", place / "stderr"
    with stdout.open("wb") as out, stderr.open("wb") as err:
        process = subprocess.Popen(
            [sys.executable, "-P", "-c", HANGUP_AT, module, "run", *options],
            cwd=ROOT,
            env=environment(variables),
            stdout=out,
            stderr=err,
        )
    server = Server(process, stdout, stderr)
    try:
        yield server
    finally:
        server.kill()


class TestMessages:
    """A life, as it is told."""

    def test_a_life(self, tmp_path: Path) -> None:
        """It is told: ready behind the ready lines, reloads, the stop; no more."""
        with (
            Notified(tmp_path / "notify") as notified,
            serving(tmp_path, variables=notified.variables) as server,
        ):
            assert notified.wait("READY") == ["READY=1", COUNTING]
            before = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            server.process.send_signal(signal.SIGHUP)
            reloading = notified.wait("RELOADING=1")
            after = time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000
            server.wait_said("nothing to read again")
            notified.wait("READY=1")
            assert server.stop() == 0
            stopping = notified.wait("STOPPING=1")
            order = [message[0] for message in notified.messages]
        assert order == ["READY=1", "RELOADING=1", "READY=1", "STOPPING=1"]
        name, _, usec = reloading[1].partition("=")
        assert name == "MONOTONIC_USEC"
        assert before <= int(usec) <= after
        assert stopping[1].startswith("STATUS=stopping")

    def test_it_is_ready_once_it_has_said_so(self, tmp_path: Path) -> None:
        """When READY=1 comes, the ready lines are there already."""
        with (
            Notified(tmp_path / "notify") as notified,
            serving(tmp_path, variables=notified.variables) as server,
        ):
            notified.wait("READY=1")
            assert server.is_ready

    def test_certificates_are_reloaded(self, tmp_path: Path) -> None:
        """READY=1 follows RELOADING=1 when the files were read."""
        authority = Authority.make(tmp_path)
        with (
            Notified(tmp_path / "notify") as notified,
            serving(
                tmp_path, *authority.server.words, variables=notified.variables
            ) as server,
        ):
            notified.wait("READY=1")
            notified.forget()
            server.process.send_signal(signal.SIGHUP)
            notified.wait("READY=1")
            assert [each[0] for each in notified.messages] == ["RELOADING=1", "READY=1"]
            server.wait_said("certificates were read again")

    def test_a_full_disk_and_a_replay(self, tmp_path: Path) -> None:
        """STATUS says that the disk is full, and no longer; a replay asks for time."""
        file = tmp_path / "data" / "log" / DATA_FILE
        before = failing(
            "pwrite64,pwritev,write,writev", "error=ENOSPC:when=2..4", file
        )
        with Notified(tmp_path / "notify") as notified:
            variables = notified.variables
            with serving(tmp_path, before=before, variables=variables) as server:
                notified.wait("READY=1")
                notified.forget()
                assert submit(server.port, wire(VOTES))
                full = notified.wait(f"STATUS={tmp_path}")
                notified.wait(COUNTING)
                server.kill()
            notified.forget()
            with serving(tmp_path, variables=variables):
                notified.wait("READY=1")
                first, *_, last = notified.messages
        assert "no space left on the disk" in full[0]
        assert first[0].startswith("EXTEND_TIMEOUT_USEC=")
        assert int(first[0].partition("=")[2]) >= 10_000_000
        assert first[1].startswith("STATUS=replaying the log, at event ")
        assert last == ["READY=1", COUNTING]
        assert totals(tmp_path) == tally(VOTES)

    def test_a_hangup_in_a_replay(self, tmp_path: Path) -> None:
        """It ends nothing, and is answered once the server is ready."""
        with serving(tmp_path) as server:
            for _ in range(BLOCKS):
                assert submit(server.port, wire(VOTES))
            server.kill()
        file = tmp_path / "data" / "log" / DATA_FILE
        before = failing("pread64", "delay_enter=10000", file)
        with Notified(tmp_path / "notify") as notified:
            server = Server.start(tmp_path, before=before, variables=notified.variables)
            try:
                notified.wait("STATUS=replaying the log")
                server.process.send_signal(signal.SIGHUP)
                notified.wait("RELOADING=1")
                server.wait_said("nothing to read again")
                states = [message[0].partition("=")[0] for message in notified.take()]
            finally:
                server.kill()
        ready = states.index("READY")
        assert states[:ready] == ["EXTEND_TIMEOUT_USEC"] * ready
        assert states[ready + 1] == "RELOADING"

    @pytest.mark.parametrize("module", ["alphabet.cli", "alphabet.assembly"])
    def test_a_hangup_while_it_begins(self, tmp_path: Path, module: str) -> None:
        """It is answered once the server is ready, however early it came."""
        with (
            Notified(tmp_path / "notify") as notified,
            hung_up(tmp_path, module, notified.variables) as server,
        ):
            server.wait_said("nothing to read again")
            notified.wait("RELOADING=1")
            assert [each[0] for each in notified.messages][:2] == [
                "READY=1",
                "RELOADING=1",
            ]
            assert server.stop() == 0

    def test_a_terminal_that_closes_while_it_begins(self, tmp_path: Path) -> None:
        """Without a manager it ends a server, as if it had come later."""
        with hung_up(tmp_path, "alphabet.cli", {}) as server:
            assert server.wait() == -signal.SIGHUP
            assert server.said() == []


class TestWatchdog:
    """The watchdog hears of work, not of a timer."""

    def test_a_commit_that_hangs(self, tmp_path: Path) -> None:
        """While a commit hangs nothing is heard; before and behind it there is."""
        with serving(tmp_path) as server:
            assert server.stop() == 0
        hanging = failing("fdatasync", f"delay_enter={HANG_SECONDS * 1e6:.0f}:when=1")
        with Notified(tmp_path / "notify") as notified:
            usec = str(4_000_000 // PINGS_PER_SECOND)
            variables = {**notified.variables, "WATCHDOG_USEC": usec}
            with serving(tmp_path, before=hanging, variables=variables) as server:
                notified.wait("WATCHDOG=1")
                notified.forget()
                assert submit(server.port, wire(VOTES))
                assert notified.count("WATCHDOG=1") <= PINGS_MAX
                notified.forget()
                notified.wait("WATCHDOG=1")
                assert server.stop() == 0
        assert PINGS_MAX * 2 < HANG_SECONDS * PINGS_PER_SECOND

    def test_another_process_is_watched(self, tmp_path: Path) -> None:
        """With the WATCHDOG_PID of another process, nothing is sent."""
        with Notified(tmp_path / "notify") as notified:
            variables = {"WATCHDOG_USEC": "40000", "WATCHDOG_PID": str(os.getpid())}
            variables |= notified.variables
            with serving(tmp_path, variables=variables) as server:
                assert submit(server.port, wire(VOTES))
                assert server.stop() == 0
            notified.wait("STOPPING=1")
            assert notified.count("WATCHDOG=1") == 0

    @given(st.integers(1, 2**63).map(lambda usec: usec / 1e6))
    @example(1e-6)
    def test_how_often_we_look(self, watchdog_seconds: float) -> None:
        """Several times in its time, but never without a rest."""
        seconds = look_seconds(watchdog_seconds)
        assert seconds >= LOOK_SECONDS_MIN
        if seconds > LOOK_SECONDS_MIN:
            assert seconds * LOOKS_PER_TIMEOUT == watchdog_seconds
        else:
            assert watchdog_seconds <= LOOK_SECONDS_MIN * LOOKS_PER_TIMEOUT
        assert look_seconds(None) == float("inf")

    @given(st.integers(0), st.floats(0, 1e9), st.integers(1), st.floats(0.001, 1e6))
    def test_what_beats(
        self, turns: int, began: float, more: int, seconds: float
    ) -> None:
        """A turn or another commit beats; stillness and one long commit do not."""
        pulse = Pulse()
        assert pulse.beats(turns, None)
        assert not pulse.beats(turns, None)
        assert pulse.beats(turns + more, None)
        assert pulse.beats(turns + more, began)
        assert not pulse.beats(turns + more, began)
        assert not pulse.beats(turns + 2 * more, began)
        assert pulse.beats(turns + 2 * more, began + seconds)
        assert pulse.beats(turns + 2 * more, None)


class TestManager:
    """The socket and the variables."""

    def test_an_abstract_address(self, tmp_path: Path) -> None:
        """A name that begins with @ is an abstract one."""
        with (
            Notified(Path(f"@alphabet-{os.getpid()}")) as notified,
            serving(tmp_path, variables=notified.variables) as server,
        ):
            notified.wait("READY=1")
            assert server.stop() == 0

    def test_nobody_listens(self, tmp_path: Path) -> None:
        """A manager that is gone costs one line; votes count."""
        variables = {"NOTIFY_SOCKET": str(tmp_path / "gone")}
        with serving(tmp_path, variables=variables) as server:
            assert submit(server.port, wire(VOTES))
            assert server.stop() == 0
            said = [line for line in server.said() if "service manager" in line]
        assert said == [
            "the service manager does not hear us: No such file or directory"
        ]
        assert totals(tmp_path) == tally(VOTES)

    def test_variables_are_taken(self, tmp_path: Path) -> None:
        """What a child of ours would inherit says nothing of a manager."""
        usec, pid = "3000000", str(os.getpid())
        environ = {"NOTIFY_SOCKET": str(tmp_path), "WATCHDOG_USEC": usec, "HOME": "/"}
        environ["WATCHDOG_PID"] = pid
        with contextlib.closing(ServiceManager.find(environ, quiet())) as manager:
            assert manager.is_there
            assert manager.watchdog_seconds == 3
        assert environ == {"HOME": "/"}
        assert not ServiceManager.find(environ, quiet()).is_there

    def test_an_address_of_another_kind(self) -> None:
        """One that is no path is named, and nobody is notified."""
        stream = io.StringIO()
        journal = Journal.open(stream, "text")
        manager = ServiceManager.find({"NOTIFY_SOCKET": "vsock:2:1"}, journal)
        journal.close()
        assert "NOTIFY_SOCKET is no path: vsock:2:1" in stream.getvalue()
        assert not manager.is_there
        manager.ready()

    def test_a_state_is_one_line(self, tmp_path: Path) -> None:
        """A line break in a state does not begin another state."""
        with Notified(tmp_path / "notify") as notified:
            manager = ServiceManager.find(dict(notified.variables), quiet())
            with contextlib.closing(manager):
                manager.tell("STATUS=no\nREADY=1", "X=1")
            assert notified.take() == [["STATUS=no READY=1", "X=1"]]

    def test_a_state_that_names_an_odd_file(self, tmp_path: Path) -> None:
        """A file's name that is no text is told all the same."""
        with Notified(tmp_path / "notify") as notified:
            manager = ServiceManager.find(dict(notified.variables), quiet())
            with contextlib.closing(manager):
                manager.tell("STATUS=\udcff: no space left")
            assert notified.take() == [["STATUS=\\udcff: no space left"]]

    @given(st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0")))
    def test_addresses(self, name: str) -> None:
        """A path is itself, @ is a zero byte, all else is none."""
        data = name.encode()
        assert parse_notify_socket("/" + name) == (b"/" + data if name else None)
        assert parse_notify_socket("@" + name) == (b"\0" + data if name else None)
        if not name.startswith(("/", "@")):
            assert parse_notify_socket(name) is None

    @given(st.integers(1, 2**63), st.integers(1), st.text())
    def test_times(self, usec: int, pid: int, text: str) -> None:
        """Microseconds become seconds, for the process that is meant; else none."""
        assert parse_watchdog(str(usec), "", pid) == usec / 1e6
        assert parse_watchdog(str(usec), str(pid), pid) == usec / 1e6
        assert parse_watchdog(str(usec), str(pid + 1), pid) is None
        assert parse_watchdog("0", "", pid) is None
        seconds = parse_watchdog(text, "", pid)
        assert seconds is None or int(text) == round(seconds * 1e6)


def quiet() -> Journal:
    """Give a journal that nobody reads."""
    return Journal.open(io.StringIO(), "text")
