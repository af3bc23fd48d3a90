"""A log made of files of frames: the one that a server would have written.

Frames go the way of a connection's: framing, decoder, computation, encoder; what comes
of them are the same events, rejects and states, in large blocks. Only the outputs are
let go: whoever wants them has them derived from the log.

Bytes come in, transactions go to a log; no files and no clock are known here.
"""

from collections import deque
from collections.abc import Callable, Iterable

import attrs

from alphabet.arrival import Received
from alphabet.framing import FrameFault, FrameReader
from alphabet.group import gather
from alphabet.intake import Intake
from alphabet.pipeline.machine import Machine
from log.block import Block, Records, Tail
from log.log import Log, Transaction
from log.row import REJECTS_KEPT_MAX, Reject

BLOCK_BYTES = 1 << 20
"""How many bytes of frames go into one block, and one read more: a server's batch."""
COMMIT_BYTES = 1 << 24
"""How many bytes of blocks go into one commit, and one block more."""


@attrs.frozen
class BadFrameError(ValueError):
    """A frame that is none, or that the application's decoder refuses.

    Attributes:
        name: What the file is called.
        position: Byte offset in it of the frame's first byte.
        cause: What is wrong with it.
    """

    name: str
    position: int
    cause: str

    def __str__(self) -> str:
        return f"{self.name}: byte {self.position}: {self.cause}"


@attrs.define
class WireImport:
    """Files of frames on their way into one pipeline of a new log.

    With `is_bad_skipped` a bad frame is counted and left out, else it ends the import.
    A file that cannot be framed any further ends there, as a connection would.

    Attributes:
        clock_ns: Tells a block's time, in ns since 1970.
        skipped: How many bad frames were left out.
        first_skipped: The first of them.
        failed: How many events there are for which `compute` or `encode` raised.
        rejects: The newest of both, as many as a log keeps.
    """

    log: Log
    machine: Machine
    pipeline: int
    frame_bytes_max: int
    is_bad_skipped: bool
    clock_ns: Callable[[], int]
    skipped: int = attrs.field(default=0, init=False)
    first_skipped: BadFrameError | None = attrs.field(default=None, init=False)
    failed: int = attrs.field(default=0, init=False)
    rejects: deque[Reject] = attrs.field(
        factory=lambda: deque(maxlen=REJECTS_KEPT_MAX), init=False
    )
    _tail: Tail = attrs.field(init=False)
    _waiting: list[Received] = attrs.field(factory=list, init=False)
    _waiting_bytes: int = attrs.field(default=0, init=False)
    _blocks: list[Block] = attrs.field(factory=list, init=False)
    _blocks_bytes: int = attrs.field(default=0, init=False)

    def __attrs_post_init__(self) -> None:
        """Go on at the log's end."""
        self._tail = self.log.tail

    def take(self, name: str, pieces: Iterable[bytes]) -> FrameFault | None:
        """Take a file, piece by piece; say why it could not be framed to its end.

        Raises BadFrameError for the first bad frame, unless they are skipped.
        """
        decoder = self.machine.definition.pipelines[self.pipeline].source.decoder
        reader = FrameReader(
            decoder.header_length(), decoder.payload_length, self.frame_bytes_max
        )
        for piece in pieces:
            frames = reader.receive(piece)
            self._waiting.append(Received(name, name, self.pipeline, frames))
            self._waiting_bytes += len(piece)
            if self._waiting_bytes >= BLOCK_BYTES:
                self._seal()
            if reader.fault is not None:
                break
        fault = reader.end()
        if fault is not None:
            self._seal()  # What is bad before it is told before it.
            self._note(_reject(name, fault, self._time_ns()))
        return fault

    def finish(self) -> None:
        """Commit the rest, and the rejects."""
        self._seal()
        self._commit(tuple(self.rejects))

    def _seal(self) -> None:
        """Make a block of what waits, and a commit of blocks that are enough."""
        time_ns = self._time_ns()
        intake = Intake(
            self.machine,
            self.pipeline,
            self._tail.sequence + 1,
            time_ns,
            listed_max=BLOCK_BYTES,  # No block has so many.
        )
        for group in gather(self._waiting):
            intake.take(group)
        self._waiting, self._waiting_bytes = [], 0
        for rejection in intake.rejections:
            self._note(rejection.reject)
        if not intake.parts:
            return
        records = Records.join(intake.parts)
        block = Block.seal(self._tail, records, time_ns=time_ns, pipeline=self.pipeline)
        self._tail = block.tail
        self._blocks.append(block)
        self._blocks_bytes += len(block.encoded)
        if self._blocks_bytes >= COMMIT_BYTES:
            self._commit()

    def _commit(self, rejects: tuple[Reject, ...] = ()) -> None:
        transaction = Transaction(tuple(self._blocks), rejects=rejects)
        if transaction:
            self.log.commit(transaction)
        self._blocks, self._blocks_bytes = [], 0

    def _note(self, reject: Reject) -> None:
        """Count and keep a reject; raises BadFrameError unless it may be skipped."""
        if reject.sequence:
            self.failed += 1
        else:
            bad = BadFrameError(reject.peer, reject.position or 0, reject.cause)
            if not self.is_bad_skipped:
                raise bad
            self.skipped += 1
            self.first_skipped = self.first_skipped or bad
        self.rejects.append(reject)

    def _time_ns(self) -> int:
        return max(self.clock_ns(), self._tail.time_ns)


def _reject(name: str, fault: FrameFault, time_ns: int) -> Reject:
    return Reject(
        time_ns=time_ns,
        reason="frame",
        cause=fault.cause,
        peer=name,
        position=fault.position,
        sequence=0,
        payload_bytes=len(fault.header),
        payload=fault.header,
    )
