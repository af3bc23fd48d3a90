"""The real server with little address space, or with a vote that takes all of it."""

import random
from pathlib import Path

import pytest

from tests.injected import failing
from tests.inspection import last_sequence, totals
from tests.process import Server, serving, submit
from tests.votes import make_votes, tally, wire

CANNOT_SERVE = 3
ENOUGH_KIB = 600_000
VOTES = make_votes(random.Random(10), 1000)
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}
"""numpy reserves much for each processor, and a machine may have many."""

GREEDY = """
from alphabet import application


def compute(self, data, state):
    return bytes(1 << 60) if data.votes == 5000 else old(self, data, state)


old = application.AddVotes.compute
application.AddVotes.compute = compute
del application.AddVotes.compute_batch
application_setup = application.application_setup
"""
"""Alphabet's own, but for one number of votes."""


def limited(address_kib: int) -> list[str]:
    """Give the command that lets a server have so much address space."""
    return ["sh", "-c", f'ulimit -v {address_kib} && exec "$@"', "sh"]


def test_a_smaller_map(tmp_path: Path) -> None:
    """With less address space than the map is wide, all is as ever."""
    with serving(
        tmp_path,
        *("--snapshot-every", 1000),
        before=limited(ENOUGH_KIB),
        variables=ONE_THREAD,
    ) as server:
        for _ in range(5):
            assert submit(server.port, wire(VOTES * 2))
        assert server.stop() == 0
    assert totals(tmp_path) == tally(VOTES * 10)


@pytest.mark.parametrize("number", [1, 5])
def test_no_room_for_a_thread(tmp_path: Path, number: int) -> None:
    """It ends in one line with exit code 3, and has not said that it is ready."""
    before = failing("clone,clone3", f"error=EAGAIN:when={number}+")
    server = Server.start(tmp_path, before=before, variables=ONE_THREAD)
    try:
        assert server.wait() == CANNOT_SERVE
        [line] = server.said()
        assert line.startswith("alphabet: out of memory (can't start new thread); give")
        assert not server.is_ready
    finally:
        server.kill()


def test_a_vote_that_takes_all_memory(tmp_path: Path) -> None:
    """MemoryError in compute ends the server before the vote's commit, in one line."""
    (tmp_path / "greedy.py").write_text(GREEDY)
    words = ["--application-module", "greedy"]
    with serving(tmp_path, *words, working_directory=tmp_path) as server:
        assert submit(server.port, wire(VOTES))
        assert not submit(server.port, wire([(b"a", 5000)]))
        assert server.wait() == CANNOT_SERVE
        assert server.said()[-1].startswith("alphabet: out of memory")
    assert last_sequence(tmp_path) == len(VOTES)
