"""What comes as a stream of votes, or as words of a command, and what must hold of it.

The oracle for frames is a reader of a few lines that has all bytes at once.
"""

import contextlib
import datetime as dt

import attrs

from alphabet.connector.frame_buffer import FrameBuffer
from alphabet.connector.wire_fields import WireError
from alphabet.framing import FrameReader, decode_length
from alphabet.network.address import AddressError, parse_address, parse_named_address
from alphabet.records.wire_import import WireImport
from alphabet.sending.vote_input import LineReader, VoteReader, WireReader
from alphabet.wallaroo import tcp_parse_input_addrs
from log.block import Records
from log.log import Log
from log.memory_store import MemoryDisk, MemoryStore
from recovery.moment import Instant, MomentError, format_instant, parse_moment
from tests.fuzzing.script import acts, pieces
from tests.machines import VOTES_META, alphabet
from tests.speeds import Side, batch_alphabet, small_bounds, without_batch_methods

FRAME_BYTES_MAX = 100
HEADER_SIZES = (4, 1, 2, 3, 8)
TOTAL_MAX = 2**64 - 1


@attrs.define
class Expected:
    """The frames of a stream: payloads, their places, where the rest begins."""

    payloads: list[bytes] = attrs.Factory(list)
    positions: list[int] = attrs.Factory(list)
    rest: int = 0
    is_foul: bool = False

    @classmethod
    def of(cls, stream: bytes, header_bytes: int) -> "Expected":
        """Read them in the plainest way."""
        found = cls()
        while found.rest + header_bytes <= len(stream):
            body = found.rest + header_bytes
            size = int.from_bytes(stream[found.rest : body])
            if size > FRAME_BYTES_MAX:
                found.is_foul = True
                break
            if body + size > len(stream):
                break
            found.payloads.append(stream[body : body + size])
            found.positions.append(found.rest)
            found.rest = body + size
        return found


def framing(data: bytes) -> None:
    """Any cut of a stream gives the plain reader's frames, faults and remainder."""
    plan, choice = (*data[:2], 0, 0)[:2]
    header_bytes = HEADER_SIZES[choice % len(HEADER_SIZES)]
    stream = data[2:]
    expected = Expected.of(stream, header_bytes)
    with small_bounds():
        for each in (0, 1, plan):
            _check_reader(stream, each, header_bytes, expected)
    _check_buffer(stream, plan)


def _check_reader(
    stream: bytes, plan: int, header_bytes: int, expected: Expected
) -> None:
    reader = FrameReader(header_bytes, decode_length, FRAME_BYTES_MAX)
    payloads: list[bytes] = []
    positions: list[int] = []
    for piece in pieces(stream, plan):
        frames = reader.receive(piece)
        assert frames.count == len(frames.payloads)
        payloads += frames.payloads
        positions += [at for each in frames.pieces for at in each.positions()]
        assert reader.partial_bytes <= header_bytes + FRAME_BYTES_MAX
    assert payloads == expected.payloads
    assert positions == expected.positions
    assert (reader.fault is not None) == expected.is_foul
    if reader.fault is None:
        assert reader.partial_bytes == len(stream) - expected.rest
    fault = reader.end()
    assert (fault is None) == (expected.rest == len(stream))
    if fault is not None:
        header = stream[expected.rest : expected.rest + header_bytes]
        assert (fault.position, fault.header) == (expected.rest, header)


def _check_buffer(stream: bytes, plan: int) -> None:
    expected = Expected.of(stream, 4)
    buffer = FrameBuffer(FRAME_BYTES_MAX, 50)
    payloads: list[bytes] = []
    is_foul = False
    with contextlib.suppress(WireError):
        is_foul = True
        for piece in pieces(stream, plan):
            left = piece
            while left:
                room = buffer.make_room()
                size = min(len(room), len(left))
                room[:size] = left[:size]
                payloads += map(bytes, buffer.frames(size))
                left = left[size:]
        is_foul = False
    assert is_foul == expected.is_foul
    # The frames before a fault were lent, but not taken here.
    assert payloads == expected.payloads[: len(payloads)]
    assert is_foul or payloads == expected.payloads


def two_speeds(data: bytes) -> None:
    """Votes count alike in batches and one by one, as do the refused and the failed."""
    with small_bounds():
        totals = {b"a": TOTAL_MAX - 1000}
        fast, slow = Side.pair(
            batch_alphabet(totals), without_batch_methods(alphabet()), 5
        )
        for act, stream in acts(data):
            for side in (fast, slow):
                side.take([side.receive(act % 2, stream)])
        assert fast.seen() == slow.seen()


def vote_wire(data: bytes) -> None:
    """A wire file's votes and its fault are those of the plain reader, however cut."""
    plan, stream = data[0] if data else 0, data[1:]
    whole = _read(WireReader(), stream, 0)
    assert whole == _read(WireReader(), stream, plan) == _read(WireReader(), stream, 1)
    with_limit = Expected.of(stream, 4)
    if not with_limit.is_foul:
        assert whole[0] == stream[: with_limit.rest]
        assert whole[1] == len(with_limit.payloads)
        assert (whole[2] is None) == (with_limit.rest == len(stream))


def vote_lines(data: bytes) -> None:
    """Lines give the same votes and the same fault however they are cut."""
    plan, stream = data[0] if data else 0, data[1:]
    frames, votes, fault = whole = _read(LineReader(), stream, 0)
    assert whole == _read(LineReader(), stream, plan)
    lines = stream.split(b"\n")
    assert votes <= len(lines)
    assert len(frames) == 9 * votes
    expected = Expected.of(frames, 4)
    assert [len(each) for each in expected.payloads] == [5] * votes
    if fault is not None:
        assert 1 <= int(fault.split(":")[0].removeprefix("line ")) <= len(lines)


def _read(
    reader: VoteReader, stream: bytes, plan: int
) -> tuple[bytes, int, str | None]:
    """Read an input up to its end, or its fault: frames, votes, fault."""
    chunks = []
    for piece in pieces(stream, plan):
        chunks.append(reader.receive(piece))
        if reader.fault:
            break
    else:
        chunks.append(reader.end())
    frames = b"".join(chunk.frames for chunk in chunks)
    fault = str(reader.fault) if reader.fault else None
    return frames, sum(chunk.votes for chunk in chunks), fault


def wire_import(data: bytes) -> None:
    """An imported file leaves every good vote, once, and the totals that they make."""
    plan, stream = data[0] if data else 0, data[1:]
    expected = Expected.of(stream, 4)
    good = [each for each in expected.payloads if len(each) == 5]
    log = Log.create(MemoryStore(MemoryDisk()), VOTES_META)
    machine = alphabet()
    work = WireImport(log, machine, 0, FRAME_BYTES_MAX, True, lambda: 1)  # noqa: FBT003
    fault = work.take("file", pieces(stream, plan))
    work.finish()
    assert (fault is None) == (expected.rest == len(stream))
    assert work.skipped == len(expected.payloads) - len(good) + (fault is not None)
    assert [record for block in log.read(0) for record in block.records] == good
    totals: dict[bytes, int] = {}
    for each in good:
        totals[each[:1]] = totals.get(each[:1], 0) + int.from_bytes(each[1:])
    state = machine.state("letter state")
    assert {v.letter: v.votes for v in state.votes_by_letter.values()} == totals
    replayed = alphabet()
    if good:
        replayed.replay(0, 1, Records.pack(good))
    assert replayed.dump() == machine.dump()


def moment(data: bytes) -> None:
    """A moment is a sequence or an instant, which is read back as it is written."""
    text = data.decode("utf-8", "surrogateescape")
    try:
        found = parse_moment(text)
    except MomentError:
        return
    if isinstance(found, Instant):
        year_1 = dt.datetime(1, 1, 2, tzinfo=dt.UTC).timestamp() * 10**9
        year_9999 = dt.datetime(9999, 12, 30, tzinfo=dt.UTC).timestamp() * 10**9
        if year_1 < found.time_ns < year_9999:
            assert parse_moment(format_instant(found.time_ns)) == found
    else:
        assert found == int(text) >= 0


def address(data: bytes) -> None:
    """An address is written as it is read, also in a list, or is refused."""
    text = data.decode("utf-8", "surrogateescape")
    with contextlib.suppress(AddressError):
        plain = parse_address(text)
        assert parse_address(str(plain)) == plain
        assert plain.host
        assert 0 <= plain.port <= 65535
    with contextlib.suppress(AddressError):
        named = parse_named_address(text)
        assert parse_named_address(str(named)) == named
        host, port = named.address.host, str(named.address.port)
        listed = tcp_parse_input_addrs(["--in", f"{named},{named}"])
        assert listed == [(host, port)] * 2
