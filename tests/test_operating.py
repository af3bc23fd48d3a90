"""docs/OPERATING.md: each procedure, run as it is written, does what it is for."""

import contextlib
import random
import re
import ssl
import subprocess
from collections.abc import Iterator
from pathlib import Path

import attrs

from tests.authority import HOST, Authority
from tests.premises import Premises, premises
from tests.process import (
    PYTHON,
    ROOT,
    SECONDS_MAX,
    environment,
    free_port,
    submit,
    wait_until,
)
from tests.votes import make_votes, outputs, wire

TEXT = (ROOT / "docs" / "OPERATING.md").read_text()
VOTES = make_votes(random.Random(1), 300)
MORE = make_votes(random.Random(2), 200)
BESIDE = ("Renew certificates", "Move to another machine", "Restore", "Disk full")
"""Sections with tests of their own."""


def sections() -> dict[str, str]:
    """Give the document's sections by their heading."""
    parts = re.split(r"^## (.*)\n", TEXT, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def vote(machine: Premises, votes: list[tuple[bytes, int]]) -> None:
    """Send votes, and wait for the receipt."""
    assert submit(int(machine.ports["7010"]), wire(votes))


def totals(machine: Premises) -> str:
    """Print the totals that the server's directory has."""
    done = machine.shell("alphabet-replay state /var/lib/alphabet --format csv")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_commands_run(tmp_path: Path) -> None:
    """Every command of the sections that change nothing for good runs."""
    with premises(tmp_path) as machine:
        vote(machine, VOTES)
        for name, text in sections().items():
            if name not in BESIDE:
                machine.run(text)


def test_a_restored_backup_has_the_totals(tmp_path: Path) -> None:
    """A log that is lost comes back with its backup's totals, and counts on."""
    with premises(tmp_path) as machine:
        vote(machine, VOTES)
        machine.run(sections()["Backup"])
        before = totals(machine)
        vote(machine, MORE)
        machine.run(sections()["Restore"])
        assert totals(machine) == before
        vote(machine, MORE)
        assert totals(machine) != before


def test_a_shorter_history_has_the_totals(tmp_path: Path) -> None:
    """A compacted log serves on with the same totals, and has a backup of its own."""
    with premises(tmp_path) as machine:
        vote(machine, VOTES)
        before = totals(machine)
        machine.run(sections()["Disk full"])
        assert totals(machine) == before
        assert machine.at("/mnt/backup/before.wire").stat().st_size == len(wire(VOTES))
        assert (machine.at("/mnt/backup/alphabet-2") / "log").is_dir()


def test_sinks_go_on_after_a_move(tmp_path: Path) -> None:
    """After a move a plain and a two-phase receiver have each output once, in order."""
    with (
        receiving(tmp_path / "plain") as plain,
        receiving(tmp_path / "two-phase", "--connector") as two_phase,
        premises(
            tmp_path / "machine",
            *("--out", f"plain@{plain}", "--connector-out", f"two@{two_phase}"),
            *("--drain-seconds", 9),
        ) as machine,
    ):
        vote(machine, VOTES)
        machine.run(sections()["Move to another machine"])
        vote(machine, MORE)
        expected = outputs([*VOTES, *MORE])
        for name in ("plain", "two-phase"):
            wait_size(tmp_path / name, len(expected))
        machine.stop()
    assert (tmp_path / "plain").read_bytes() == expected
    assert (tmp_path / "two-phase").read_bytes() == expected


def wait_size(file: Path, size: int) -> None:
    """Wait until a file has come to a size, at least."""
    wait_until(lambda: file.exists() and file.stat().st_size >= size, f"all of {file}")


@contextlib.contextmanager
def receiving(file: Path, *words: str) -> Iterator[str]:
    """Run a receiver that keeps outputs in a file; give its address."""
    address = f"127.0.0.1:{free_port()}"
    program = [*PYTHON, "alphabet.cli", "receive", "--listen", address, *words]
    with subprocess.Popen(
        [*program, "--output", str(file)],
        env=environment({}),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as receiver:
        try:
            yield address
        finally:
            receiver.terminate()


def test_renewed_certificates_are_shown(tmp_path: Path) -> None:
    """A renewed certificate is what a new connection is shown."""
    machine = Premises(tmp_path)
    authority = Authority.make(machine.at("/etc/alphabet"))
    machine.words = authority.server.words
    machine.at("/mnt/renewed").mkdir()
    renewed = attrs.evolve(authority, place=machine.at("/mnt/renewed"))
    certificate = renewed.issue("server", HOST).certificate.read_text()
    try:
        machine.start()
        assert not certificate.startswith(shown(machine))
        machine.run(sections()["Renew certificates"])
        assert certificate.startswith(shown(machine))
    finally:
        machine.kill()


def shown(machine: Premises) -> str:
    """Give the certificate that a sender is shown."""
    address = (HOST, int(machine.ports["7010"]))
    return ssl.get_server_certificate(address, timeout=SECONDS_MAX)
