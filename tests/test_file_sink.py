"""The durable file: whatever crashes, its bytes are those that were committed.

`Disk` is the fault model: what was not flushed may be lost at a crash, in part or
whole, file by file, and a rename likewise.
"""

import contextlib
import os
import random
import stat
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from alphabet.receiving import file_sink
from alphabet.receiving.file_sink import (
    FileSink,
    SinkDamageError,
    SinkFileError,
    log_path,
)
from log import failpoint

NAMES = ("out", "out.transactions")


def flush_nothing(_: int) -> None:
    """Spare the disk where no power fails."""


class Crash(BaseException):
    """The process ends here."""


@attrs.define
class Disk:
    """Knows what of two files in a directory is flushed.

    `images` are the flushed bytes of each file that was ever there, by its number;
    `names` are the flushed names.
    """

    path: Path
    images: dict[int, bytes] = attrs.field(factory=dict)
    names: dict[str, int] = attrs.field(factory=dict)
    kept: list[int] = attrs.field(factory=list)
    reach: Callable[[str], None] | None = None

    def flush(self, descriptor: int) -> None:
        """Flush a file or the directory, as `os.fsync` does.

        What was written before is not flushed yet when `reach` is called.
        """
        if self.reach is not None:
            self.reach("flush")
        number = os.fstat(descriptor).st_ino
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            self.names = {
                name: (self.path / name).stat().st_ino
                for name in NAMES
                if (self.path / name).exists()
            }
            return
        if number not in self.images:
            # A number must not be given to another file as long as we know it by it.
            link = f"/proc/self/fd/{descriptor}"
            self.kept.append(os.open(link, os.O_RDONLY))
        self.images[number] = os.pread(descriptor, 1 << 20, 0)

    def crash(self, choose: random.Random) -> None:
        """Leave what a power failure may: each file flushed, whole or in between."""
        left = {}
        for name in NAMES:
            path = self.path / name
            is_renamed = path.exists() and choose.random() < 0.5
            number = path.stat().st_ino if is_renamed else self.names.get(name)
            if number is None:
                continue
            flushed = self.images.get(number, b"")
            written = path.read_bytes() if is_renamed else flushed
            left[name] = self._torn(flushed, written, choose)
        for path in self.path.iterdir():
            path.unlink()
        for name, data in left.items():
            (self.path / name).write_bytes(data)
        self.images.clear()
        self.close()
        for name in left:
            with (self.path / name).open("rb") as file:
                self.flush(file.fileno())
        descriptor = os.open(self.path, os.O_RDONLY)
        self.flush(descriptor)
        os.close(descriptor)

    def close(self) -> None:
        """Forget the files."""
        while self.kept:
            os.close(self.kept.pop())

    def _torn(self, flushed: bytes, written: bytes, choose: random.Random) -> bytes:
        """Give bytes between those flushed and those written: a part of each change."""
        if written == flushed or choose.random() < 0.3:
            return flushed if choose.random() < 0.5 else written
        same = next(
            (n for n, (a, b) in enumerate(zip(flushed, written)) if a != b),  # noqa: B905
            min(len(flushed), len(written)),
        )
        size = choose.randint(same, max(len(flushed), len(written)))
        torn = bytearray(flushed[:size].ljust(size, b"\0"))
        for place in range(same, min(size, len(written))):
            if choose.random() < 0.7:
                torn[place] = written[place]
        return bytes(torn)


class SinkMachine(RuleBasedStateMachine):
    """Every step of a file sink, and crashes in between and within."""

    def __init__(self) -> None:
        super().__init__()
        self.resources = contextlib.ExitStack()

    @initialize(log_bytes_max=st.sampled_from([1, 200, 1 << 16]))
    def begin(self, log_bytes_max: int) -> None:
        """Open a new file; short logs are replaced often."""
        path = self.resources.enter_context(tempfile.TemporaryDirectory())
        patch = self.resources.enter_context(pytest.MonkeyPatch.context())
        patch.setattr(file_sink, "LOG_BYTES_MAX", log_bytes_max)
        self.patch = patch
        self.disk = Disk(Path(path))
        self.resources.callback(self.disk.close)
        self.path = Path(path) / "out"
        self.committed = b""
        self.prepared: tuple[bytes, bytes] | None = None
        self.tail = b""
        self.number = 0
        self.may_have: list[tuple[bytes, tuple[bytes, bytes] | None]] = []
        self.open()

    def teardown(self) -> None:
        """Let everything go."""
        if hasattr(self, "sink"):
            self.sink.close()
        self.resources.close()

    def open(self) -> None:
        """Open the sink anew."""
        self.sink = FileSink.open(self.path, self.disk.flush)
        self.tail = b""

    @property
    def is_prepared(self) -> bool:
        """Say whether a transaction waits."""
        return self.prepared is not None

    @precondition(lambda self: not self.is_prepared)
    @rule(payloads=st.lists(st.binary(max_size=9), max_size=4))
    def put(self, payloads: list[bytes]) -> None:
        """Append outputs."""
        offset = len(self.committed + self.tail)
        assert self.sink.put(offset, payloads)
        self.tail += b"".join(payloads)

    @precondition(lambda self: not self.is_prepared)
    @rule(back=st.integers(1, 20), more=st.binary(max_size=5))
    def put_again(self, back: int, more: bytes) -> None:
        """Append outputs that are there in part; they are written once."""
        there = self.committed + self.tail
        start = max(0, len(there) - back)
        assert self.sink.put(start, [there[start:], more])
        self.tail += more

    @precondition(lambda self: not self.is_prepared)
    @rule()
    def take_back(self) -> None:
        """Cut off what is not prepared."""
        self.sink.take_back()
        self.tail = b""

    @precondition(lambda self: not self.is_prepared)
    @rule()
    def prepare(self) -> None:
        """Prepare what there is."""
        self.number += 1
        name = b"t%d" % self.number
        self.sink.prepare(name)
        self.prepared = name, self.tail
        self.tail = b""

    @precondition(lambda self: self.is_prepared)
    @rule(is_commit=st.booleans())
    def decide(self, is_commit: bool) -> None:
        """Settle the prepared transaction."""
        if is_commit:
            self.sink.commit()
        else:
            self.sink.abort()
        self._settled(is_commit=is_commit)

    def _settled(self, *, is_commit: bool) -> None:
        if is_commit and self.prepared:
            self.committed += self.prepared[1]
        self.prepared = None

    @rule(seed=st.integers(0, 2**32))
    def crash(self, seed: int) -> None:
        """Lose the process and what was not flushed, and begin again."""
        self.sink.close()
        self.disk.crash(random.Random(seed))
        self.open()

    @rule()
    def kill(self) -> None:
        """Lose the process alone, and begin again."""
        self.sink.close()
        self.open()

    @rule(
        seed=st.integers(0, 2**32),
        turn=st.integers(1, 12),
        is_commit=st.booleans(),
        more=st.binary(max_size=5),
        is_power_lost=st.booleans(),
    )
    def crash_within(
        self, seed: int, turn: int, is_commit: bool, more: bytes, is_power_lost: bool
    ) -> None:
        """Crash at a failpoint or before a flush; the step was taken, or was not."""
        turns = iter(range(1, turn + 1))

        def reach(_: str) -> None:
            if next(turns, turn) == turn:
                raise Crash

        if self.prepared is None:
            self.put([more])
        self.patch.setattr(failpoint, "handler", reach)
        self.disk.reach = reach
        try:
            if self.prepared is None:
                self.prepare()
            self.decide(is_commit)
        except Crash:
            self._stop_reaching()
            self.sink.close()
            if is_power_lost:
                self.disk.crash(random.Random(seed))
            tail, prepared = self.tail, self.prepared
            self.open()
            self._follow(tail, prepared, is_commit=is_commit)
        self._stop_reaching()

    def _stop_reaching(self) -> None:
        self.patch.setattr(failpoint, "handler", None)
        self.disk.reach = None

    def _follow(
        self, tail: bytes, prepared: tuple[bytes, bytes] | None, *, is_commit: bool
    ) -> None:
        """See which of the steps that were begun were taken."""
        found = self.sink.prepared
        if prepared is None and found is not None:
            # It was prepared in the file before anybody was told.
            assert found.name == b"t%d" % self.number
            self.prepared = found.name, tail
        elif prepared is not None and found is None:
            is_done = self.sink.committed_bytes > len(self.committed) or not prepared[1]
            assert is_commit or not is_done or not prepared[1]
            self._settled(is_commit=is_commit and is_done)

    @invariant()
    def agrees(self) -> None:
        """The sink knows of what was committed and prepared, and the file has it."""
        if not hasattr(self, "sink"):
            return
        sink = self.sink
        prepared = self.prepared[1] if self.prepared else b""
        assert sink.committed_bytes == len(self.committed)
        assert (sink.prepared is None) == (self.prepared is None)
        if sink.prepared and self.prepared:
            assert sink.prepared.name == self.prepared[0]
        whole = self.committed + prepared + self.tail
        assert sink.end_bytes == len(whole)
        assert self.path.read_bytes() == whole


TestSinkMachine = SinkMachine.TestCase


@pytest.fixture
def sink(tmp_path: Path) -> Iterator[FileSink]:
    """Give a sink of a new file."""
    opened = FileSink.open(tmp_path / "out", flush_nothing)
    with contextlib.closing(opened):
        yield opened


class TestFileSink:
    """What the machine does not ask."""

    def test_others_are_kept_out(self, sink: FileSink) -> None:
        """A file that is held is refused to another, until it is let go."""
        with pytest.raises(SinkFileError, match="another receiver writes"):
            FileSink.open(sink.path)
        sink.close()
        FileSink.open(sink.path).close()

    def test_outputs_that_differ_are_noticed(self, sink: FileSink) -> None:
        """Outputs for bytes that the file has are refused unless they are the same."""
        sink.put(0, [b"abc"])
        assert not sink.put(1, [b"xc", b"def"])
        assert sink.put(1, [b"b"])
        assert sink.path.read_bytes() == b"abc"

    @given(st.integers(0, 3000), st.integers(1, 100))
    def test_little_writes_are_gone_on_with(self, count: int, taken: int) -> None:
        """However many buffers come and however few are taken, all are written."""
        payloads = [b"%d," % number for number in range(count)]

        def write_little(file: int, buffers: list[bytes], offset: int) -> int:
            return os.pwrite(file, b"".join(buffers)[:taken], offset)

        with (
            tempfile.TemporaryDirectory() as place,
            pytest.MonkeyPatch.context() as patch,
            contextlib.closing(
                FileSink.open(Path(place) / "out", flush_nothing)
            ) as sink,
        ):
            if taken < 50:
                patch.setattr(os, "pwritev", write_little)
            assert sink.put(0, payloads)
            assert sink.path.read_bytes() == b"".join(payloads)

    def test_the_log_stays_short(
        self, sink: FileSink, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A log beyond its limit is replaced, and still knows the last commit."""
        monkeypatch.setattr(file_sink, "LOG_BYTES_MAX", 300)
        for number in range(40):
            sink.put(number, [b"x"])
            sink.prepare(b"t%d" % number)
            sink.commit()
            assert log_path(sink.path).stat().st_size <= 400
        sink.close()
        with contextlib.closing(FileSink.open(sink.path)) as again:
            assert (again.committed_bytes, again.last_committed) == (40, b"t39")

    def test_a_stranger_is_left_alone(self, tmp_path: Path) -> None:
        """A file with bytes and no transaction log is refused, and not touched."""
        path = tmp_path / "out"
        path.write_bytes(b"mine")
        with pytest.raises(SinkFileError, match="has no transaction log"):
            FileSink.open(path)
        assert path.read_bytes() == b"mine"
        assert list(tmp_path.iterdir()) == [path]

    def test_missing_bytes_are_damage(self, sink: FileSink) -> None:
        """A file that is shorter than its log says is refused, and not touched."""
        sink.put(0, [b"abc"])
        sink.prepare(b"t")
        sink.close()
        sink.path.write_bytes(b"ab")
        with pytest.raises(SinkDamageError, match=r"has 2 bytes, and .* that 3 are"):
            FileSink.open(sink.path)
        assert sink.path.read_bytes() == b"ab"

    def test_a_corrupt_log_is_damage(self, sink: FileSink) -> None:
        """A changed line is told with its place, and neither file is touched."""
        sink.put(0, [b"abc"])
        sink.prepare(b"t")
        sink.commit()
        sink.close()
        log = log_path(sink.path)
        log.write_bytes(log.read_bytes().replace(b"prepared", b"prepaid "))
        before = log.read_bytes()
        with pytest.raises(SinkDamageError, match="is corrupt at byte 31: "):
            FileSink.open(sink.path)
        assert (sink.path.read_bytes(), log.read_bytes()) == (b"abc", before)

    @pytest.mark.parametrize("is_commit", [False, True])
    def test_nothing_is_settled_that_is_not_prepared(
        self, sink: FileSink, *, is_commit: bool
    ) -> None:
        """A decision without a transaction is a mistake of the caller's."""
        with pytest.raises(ValueError, match="no transaction is prepared"):
            (sink.commit if is_commit else sink.abort)()

    def test_what_is_no_file_is_refused(self, tmp_path: Path) -> None:
        """A directory, a missing parent and a pipe are each told."""
        os.mkfifo(tmp_path / "pipe")
        for name, cause in {
            ".": "Is a directory",
            "no/file": "No such file",
            "pipe": "is no regular file",
        }.items():
            with pytest.raises(SinkFileError, match=cause):
                FileSink.open(tmp_path / name)

    def test_a_failed_flush_prepares_nothing(self, tmp_path: Path) -> None:
        """Where the disk does not flush, the caller hears of it, and is told no yes."""
        fails = False

        def flush(descriptor: int) -> None:
            if fails:
                raise OSError(5, "Input/output error")
            os.fsync(descriptor)

        with contextlib.closing(FileSink.open(tmp_path / "out", flush)) as sink:
            sink.put(0, [b"abc"])
            fails = True
            with pytest.raises(OSError, match="Input/output"):
                sink.prepare(b"t")
            assert sink.prepared is None
