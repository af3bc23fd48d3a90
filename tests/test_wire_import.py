"""Files of frames into a log: the same events and rejects as a server's engine has."""

import itertools
import random
from collections.abc import Iterator

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphabet.arrival import Received
from alphabet.engine import Engine
from alphabet.framing import FrameReader
from alphabet.pipeline.machine import Machine
from alphabet.records import wire_import
from alphabet.records.wire_import import BadFrameError, WireImport
from log.block import Tail
from log.log import Log
from log.memory_store import MemoryDisk, MemoryStore
from log.row import REJECTS_KEPT_MAX, Meta, Reject
from tests import toy
from tests.machines import VOTES_META, alphabet
from tests.votes import frame, make_votes, tally, wire

FRAME_BYTES_MAX = 60

files = st.lists(st.lists(toy.inputs, max_size=6), min_size=1, max_size=3)
tears = st.sampled_from([b"", b"\x05p", bytes([FRAME_BYTES_MAX + 1])])


def frames(payloads: list[bytes]) -> bytes:
    """Frame payloads as the toy has them."""
    return b"".join(bytes([len(payload)]) + payload for payload in payloads)


def pieces(data: bytes, size: int) -> Iterator[bytes]:
    """Cut a file as reading does."""
    return (data[start : start + size] for start in range(0, len(data), size))


def begin(
    machine: Machine,
    *,
    meta: Meta = toy.META,
    pipeline: int = 0,
    is_skipped: bool = True,
) -> WireImport:
    """Begin an import into an empty log, by a clock that goes on."""
    log = Log.create(MemoryStore(MemoryDisk()), meta)
    clock = itertools.count(1)
    return WireImport(
        log, machine, pipeline, FRAME_BYTES_MAX, is_skipped, lambda: next(clock)
    )


def events(log: Log) -> list[tuple[int, bytes]]:
    """Give a log's events: pipeline and record."""
    blocks = list(log.read(log.base.sequence))
    return [(block.pipeline, record) for block in blocks for record in block.records]


@attrs.define
class Served:
    """What an engine makes of the same connections."""

    machine: Machine
    pipeline: int
    events: list[tuple[int, bytes]] = attrs.Factory(list)
    rejects: list[Reject] = attrs.Factory(list)

    def take(self, number: int, data: bytes) -> None:
        """Take what one connection sends."""
        engine = Engine(self.machine, Tail(len(self.events), 0), 1 << 60)
        reader = FrameReader(toy.HEADER_BYTES, lambda bs: bs[0], FRAME_BYTES_MAX)
        received = Received(
            number, f"file {number}", self.pipeline, reader.receive(data)
        )
        self.rejects += [each.reject for each in engine.take([received], 0)]
        batch = engine.seal(0.0, is_last=True)
        for block in batch.transaction.blocks if batch else ():
            self.events += [(self.pipeline, record) for record in block.records]


def said(reject: Reject) -> Reject:
    """Give what a reject says beside its time."""
    return attrs.evolve(reject, time_ns=0)


class TestLikeAServer:
    """What comes of files is what comes of connections."""

    @given(files, tears, st.integers(1, 9), toy.pipelines, st.integers(1, 40))
    def test_the_same_log(
        self, sent: list[list[bytes]], tear: bytes, size: int, pipeline: int, block: int
    ) -> None:
        """Events, states, marks and rejects are the engine's, however a file is cut."""
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(wire_import, "BLOCK_BYTES", block)
            patch.setattr(wire_import, "COMMIT_BYTES", 4 * block)
            work = begin(toy.machine(), pipeline=pipeline)
            served = Served(toy.machine(), pipeline)
            for number, payloads in enumerate(sent):
                data = frames(payloads) + tear
                fault = work.take(f"file {number}", pieces(data, size))
                assert (fault is None) == (not tear)
                served.take(number, data)
            work.finish()
        assert events(work.log) == served.events
        assert work.machine.dump() == served.machine.dump()
        assert work.machine.is_marked == served.machine.is_marked
        kept = [said(reject) for _, reject in work.log.rejects()]
        torn = [each for each in kept if each.reason == "frame"]
        assert [each for each in kept if each.reason != "frame"] == list(
            map(said, served.rejects)
        )
        assert [each.peer for each in torn] == [
            f"file {number}" for number in range(len(sent)) if tear
        ]
        assert [each.position for each in torn] == [
            len(frames(payloads)) for payloads in sent if tear
        ]
        assert work.skipped == sum(not each.sequence for each in kept)
        assert work.failed == sum(bool(each.sequence) for each in kept)

    def test_files_share_blocks(self) -> None:
        """Many small files are not many small blocks."""
        work = begin(toy.machine())
        for number in range(100):
            work.take(f"file {number}", [frames([b"p1", b"p2"])])
        work.finish()
        assert [block.records.count for block in work.log.read(0)] == [200]

    def test_blocks_and_commits_are_bounded(self) -> None:
        """A block has one read more than its bound, and a commit waits for no end."""
        work = begin(alphabet(), meta=VOTES_META)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(wire_import, "BLOCK_BYTES", 1800)
            patch.setattr(wire_import, "COMMIT_BYTES", 5000)
            seen = []

            def read() -> Iterator[bytes]:
                for _ in range(40):
                    yield wire([(b"a", 1)] * 100)
                    seen.append(work.log.tail.sequence)

            work.take("votes", read())
            work.finish()
        assert {block.records.count for block in work.log.read(0)} == {200}
        assert max(100 * (n + 1) - end for n, end in enumerate(seen)) <= 1200
        assert work.log.tail.sequence == 4000


class TestBadFrames:
    """What is no frame, or no event."""

    def test_the_first_is_named(self) -> None:
        """Without leave to skip, the first bad frame's file and byte are raised."""
        work = begin(toy.machine(), is_skipped=False)
        assert work.take("one", [frames([b"p", b"f"])]) is None
        with pytest.raises(BadFrameError) as raised:
            work.take("two", [frames([b"p", b"r1", b"r2"]) + b"\x09p"])
        assert (raised.value.name, raised.value.position) == ("two", 2)
        assert str(raised.value) == "two: byte 2: ValueError: it wished to be refused"
        assert list(work.log.read(0)) == []

    @pytest.mark.parametrize(
        ("tear", "cause"),
        [
            (b"\x02p", "the stream ended after 2 of a frame's 3 bytes"),
            (b"\x3dp", "a payload of 61 bytes, where 60 are accepted"),
        ],
    )
    def test_a_torn_file_is_named(self, tear: bytes, cause: str) -> None:
        """A cut or oversized frame is bad like any other."""
        work = begin(toy.machine(), is_skipped=False)
        with pytest.raises(BadFrameError, match=cause) as raised:
            work.take("one", [frames([b"p"]) + tear])
        assert raised.value.position == 2

    def test_a_torn_file_is_not_read_on(self) -> None:
        """What comes behind a fault in the framing is not asked for."""
        data = iter([frames([b"p"]) + b"\xff", b"more", b"and more"])
        work = begin(toy.machine())
        assert work.take("one", data) is not None
        assert list(data) == [b"more", b"and more"]

    def test_rejects_are_bounded(self) -> None:
        """The newest are kept, as many as a log keeps, and all are counted."""
        work = begin(toy.machine())
        many = REJECTS_KEPT_MAX + 5
        work.take("one", [frames([b"r"] * many)])
        work.finish()
        kept = [reject.position for _, reject in work.log.rejects()]
        assert kept == [2 * number for number in range(5, many)]
        assert len(work.rejects) == REJECTS_KEPT_MAX
        assert work.skipped == many
        assert work.first_skipped is not None
        assert work.first_skipped.position == 0


def test_votes_in_batches() -> None:
    """Large runs of votes are counted like any, with a bad one among them."""
    votes = make_votes(random.Random(1), 3000)
    work = begin(alphabet(), meta=VOTES_META)
    work.take("votes", [wire(votes) + frame(b"bad") + wire(votes)])
    work.finish()
    assert (work.skipped, work.failed) == (1, 0)
    totals = work.machine.state("letter state").votes_by_letter.values()
    found = {vote.letter.decode(): vote.votes for vote in totals}
    assert found == tally([*votes, *votes])
