"""What fuzzing begins with: real votes, talks and logs, all of them small."""

import struct
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

from alphabet.connector.frames import (
    MESSAGE_HEAD_BYTES,
    Ack,
    EndOfStream,
    Error,
    Frame,
    Hello,
    Message,
    Notify,
    NotifyAck,
    Ok,
    Restart,
    encode_frame,
)
from alphabet.connector.phases import (
    ListUncommitted,
    Phase,
    Phase1,
    Phase2,
    Reply,
    ReplyUncommitted,
    encode_phase,
)
from alphabet.connector.transaction_log import Step, Transaction, advance, begin
from log.block import Block, Point, Records, Tail
from log.lmdb_store import DATA_FILE, LmdbStore
from log.log import Log
from log.log import Transaction as Commit
from log.row import Cursor, encode_point, seal_row
from log.store import CURSORS, META, REJECTS, STREAMS
from recovery.snapshot import Snapshot, State
from tests.connector_senders import flood
from tests.fuzzing.script import script
from tests.samples import META as LOG
from tests.samples import REJECT

GOLDEN = Path(__file__).parent.parent / "golden" / "log-v1" / DATA_FILE
PAGE_BYTES = 4096
SMALL_PAGE_BYTES = 512

_VOTE = b"\0\0\0\x05a\0\0\0\x07"
_VOTES = b"".join(b"\0\0\0\x05%c\0\0\0%c" % (97 + n % 5, n) for n in range(12))


def _streams() -> list[bytes]:
    foul = _VOTE + b"\0\0\1\0" + _VOTE
    parts = [b"", _VOTE, _VOTES, _VOTES[:-3], b"\0\0\0\0" * 3, foul, b"\0\0\0\3abc"]
    return [bytes([plan]) + part for plan in (0, 7) for part in parts]


def _framing() -> list[bytes]:
    short = [b"\0\1\2ab\3abc" * 4, b"\0\2ab" * 9, b"\0\0\2ab" * 3]
    longest = [b"\0\0\0\0\0%c" % size + bytes(size) for size in (100, 101)]
    sizes = [*longest, b"\5\1" + short[0], b"\5\2" + short[1], b"\5\3" + short[2]]
    return [*sizes, *(each[:1] + b"\0" + each[1:] for each in _streams())]


def _two_speeds() -> list[bytes]:
    large = b"\0\0\0\x05a\xff\xff\xff\xff"
    told = [[(0, _VOTES)], [(0, _VOTES[:20]), (1, _VOTES), (0, _VOTES[20:])]]
    told += [[(0, large), (1, _VOTE * 5)], [(0, _VOTES + b"\0\0\0\3abc" + _VOTES)]]
    return [script(each) for each in told]


def _lines() -> list[bytes]:
    texts = [
        b"a 1\nb 2\n",
        b"# note\n\n\\x23 7\n",
        b"\xc3\xa9 4\n\xe9 4294967295",
        b"# 5",
    ]
    return [b"\5" + each for each in [*texts, b"a b c\n", b"a -1\n", b" a 01 \r\n"]]


def _words(*texts: str) -> Callable[[], list[bytes]]:
    return lambda: [text.encode() for text in texts]


def _bodies() -> list[bytes]:
    frames: list[Frame] = [
        Hello(b"0.0.1", b"cookie", b"program", b"instance"),
        Ok(7),
        Error(b"why"),
        Notify(1, b"name", 3),
        NotifyAck(is_success=True, stream_id=1, point=2),
        Message(1, 2, -3, b"key", b"payload"),
        Ack(3, ((1, 2), (3, 4))),
        Restart(),
        EndOfStream(1),
        EndOfStream(1, 2),
    ]
    phases: list[Phase] = [
        ListUncommitted(7),
        ReplyUncommitted(7, (b"one", b"two")),
        Phase1(b"one", ((1, 2, 3), (1, 3, 4))),
        Reply(b"one", is_commit=True),
        Phase2(b"one", is_commit=False),
    ]
    messages = [encode_phase(each) for each in phases]
    whole = [*(encode_frame(each) for each in frames), *messages]
    payloads = [each[4 + MESSAGE_HEAD_BYTES :] for each in messages]
    # They claim more entries than memory has room for.
    many = b"\xff" * 4
    claims = [b"\6" + many * 2, b"\xca" + bytes(8) + many, b"\xcb\0\1a" + many]
    return [each[4:] for each in whole] + payloads + claims


def _frames(*frames: Frame | Phase) -> bytes:
    return b"".join(
        encode_phase(each)
        if isinstance(
            each, ListUncommitted | ReplyUncommitted | Phase1 | Reply | Phase2
        )
        else encode_frame(each)
        for each in frames
    )


def _senders() -> list[bytes]:
    hello = Hello(b"0.0.1", b"", b"program", b"instance")
    other = Hello(b"0.0.1", b"", b"program", b"other")
    opened = _frames(hello, Notify(1, b"name", 0))
    talks = [
        [(0, opened), (0, flood(1, range(1, 6))), (4, b""), (0, flood(1, range(4, 9)))],
        [(0, opened), (1, _frames(other, Notify(1, b"name", 0))), (6, b"."), (4, b"")],
        [(0, opened + flood(1, [3, 1, 2, 9])), (1, opened), (4, b"..."), (6, b"")],
        [(0, opened + _frames(EndOfStream(1))), (0, _frames(Notify(9, b"nine", 0)))],
        [
            (0, opened + _frames(Message(1, 1, 0, b"key", b"."))),
            (7, b".."),
            (6, b"..."),
        ],
        [(0, opened + _frames(Error(b"no")))],
        [(0, opened), (0, flood(1, [1, 2, 2, 3, 3, 3, 4])), (4, b"")],
    ]
    return [script(each) for each in talks]


def _servers() -> list[bytes]:
    granted = NotifyAck(is_success=True, stream_id=7, point=2**64 - 1)
    opened = [(0, b""), (2, b"ab"), (4, _frames(Ok(5), granted))]
    talks = [
        [*opened, (2, b"abc"), (4, _frames(Ack(2, ((7, 5),)))), (3, b""), (4, b"")],
        [*opened, (1, b""), *opened[:1], (4, _frames(Ok(0), Ack(3), granted))],
        [*opened, (10, b"abcdefgh"), (4, _frames(Restart())), (0, b"")],
        [*opened[:2], (4, _frames(Ok(5), NotifyAck(False, 7, 0)))],  # noqa: FBT003
        [*opened, (4, _frames(Error(b"no")))],
        [(2, b"ab"), (3, b""), *opened[2:], (0, b""), (4, _frames(Ok(9), granted))],
    ]
    return [script(each) for each in talks]


def _sinks() -> list[bytes]:
    granted = NotifyAck(is_success=True, stream_id=1, point=30)
    opened = [(0, _frames(Ok(5), granted, ReplyUncommitted(1, (b"none", b"two"))))]
    yes = (0, _frames(Reply(b"30-33-id", is_commit=True)))
    talks = [
        [*opened, (1, b"abc"), yes, (3, b""), (2, b".."), (3, b"")],
        [*opened, (1, b"abc"), (0, _frames(Ack(1), Reply(b"30-33-id", False)))],  # noqa: FBT003
        [*opened, (0, _frames(Error(b"no")))],
        [*opened, (0, _frames(Restart()))],
    ]
    return [script(each) for each in talks]


def _upstreams() -> list[bytes]:
    hello = Hello(b"v0.0.1", b"", b"alphabet", b"one")
    opened = _frames(hello, Notify(1, b"out", 0), ListUncommitted(1))
    outputs = _frames(*(Message(1, at, 0, b"", b"abc") for at in (0, 3)))
    asked = _frames(Phase1(b"t", ((1, 0, 6),)))
    decided = [_frames(Phase2(b"t", is_commit=each)) for each in (True, False)]
    again = _frames(Message(1, 6, 0, b"", b"xy"), Phase1(b"u", ((1, 6, 8),)))
    talks = [
        [(0, opened + outputs + asked), (0, decided[0]), (0, again), (6, b"")],
        [(0, opened + outputs + asked), (1, opened), (1, decided[1])],
        [
            (0, opened + outputs),
            (6, b""),
            (0, opened + outputs + asked),
            (0, decided[1]),
        ],
        [(0, opened + _frames(Phase1(b"t", ((1, 0, 9),)))), (0, decided[1])],
        [(0, opened + outputs + _frames(EndOfStream(1))), (0, _frames(Error(b"no")))],
    ]
    return [script(each) for each in talks]


def _requests() -> list[bytes]:
    heads = [
        b"GET /votes HTTP/1.1\r\nHost: localhost",
        b"HEAD /votes/%E9?at=2 HTTP/1.0\r\nHost: [::1]:1",
        b"GET /votes/a?at=3 HTTP/1.1\r\nHost: a.example",
        b"POST / HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1\r\nExpect: no",
        b'GET /votes HTTP/1.1\r\nHost: [::1]\r\nIf-None-Match: W/"id-4"',
        b"PUT /x HTTP/1.1\r\nHost: ::1\r\nTransfer-Encoding: chunked",
    ]
    whole = [head + b"\r\n\r\n" for head in heads]
    long = b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\n\r\n"
    events = b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n"
    streams = [*whole, whole[0] * 2 + whole[2], long, events, b"\x16\x03\1\2\0"]
    return [b"\0" + each for each in streams] + [b"\7" + whole[3] + b"x" + whole[0]]


def _blocks() -> Iterator[Block]:
    tail = Tail(0, 0)
    records = [
        Records.pack([b"a\0\0\0\1", b"b\0\0\0\2"]),
        Records.pack([b"one", b"", b"three"]),
        Records.gap(10),
        Records.pack([b""]),
    ]
    for number, each in enumerate(records):
        points = [Point(7, number, b"seven"), Point(8, 1, b"")][:number]
        sealed = Block.seal(tail, each, time_ns=number, points=points)
        tail = sealed.tail
        yield sealed


def _scans() -> list[bytes]:
    one, two, three, four = (block.encoded for block in _blocks())
    nested = Block.seal(Tail(0, 0), Records.pack([one]), time_ns=0).encoded
    torn = one[:-1] + b"?"
    return [
        one + two + three + four,
        b"noise" + two + torn + three,
        nested + b"\xabBL",
        nested[:-1] + b"?" + one,
    ]


def _rows() -> list[bytes]:
    point = encode_point(Point(7, 70, b"seven"))
    bodies = [
        (CURSORS, b"out", Cursor(1, 2, b"id").encode()),
        (STREAMS, bytes(8), point),
        (REJECTS, bytes(8), REJECT.encode()),
        (META, b"meta", LOG.encode()),
    ]
    return [
        bytes([number, len(key)]) + key + seal_row(table, key, 5, body)
        for number, (table, key, body) in enumerate(bodies)
    ]


def _snapshots() -> list[bytes]:
    states = (
        State("letter state", "dump", b"a" + bytes(8)),
        State("two", "pickle", b""),
    )
    return [
        Snapshot("id", 7, 5, 99, "alphabet", 1, states[:count]).encode()
        for count in range(3)
    ]


def _transaction_logs() -> list[bytes]:
    data, standing = begin(5, b"before")
    logs = [begin()[0], data]
    for step in (Step.PREPARED, Step.ABORTED, Step.PREPARED, Step.COMMITTED):
        line, standing = advance(standing, step, Transaction(b"one", 5, 9))
        data += line
        logs.append(data)
    return [*logs, data[:-3]]


def _files() -> list[bytes]:
    """Give logs' files, as LMDB wrote them with small rows, and the golden one."""
    files = [GOLDEN.read_bytes()]
    for commits in (0, 2, 3):
        with tempfile.TemporaryDirectory() as name:
            log = Log.create(
                LmdbStore.open(Path(name), is_new=True, map_bytes=1 << 24), LOG
            )
            for number in range(commits):
                records = Records.pack([b"a\0\0\0\1"] * (number + 1))
                point = Point(number, number, b"name")
                sealed = Block.seal(log.tail, records, time_ns=1, points=[point])
                cursors = {f"sink {number}": Cursor(number, 0)}
                rejects = (REJECT,) if number == 1 else ()
                log.commit(Commit((sealed,), cursors=cursors, rejects=rejects))
            log.close()
            files.append((Path(name) / DATA_FILE).read_bytes())
    small = [_smaller(each) for each in files[1:]]
    return [files[0], *small, *_with_bad_leaf(small[-1])]


def _with_bad_leaf(data: bytes) -> Iterator[bytes]:
    """Change every leaf: a node at the page's very end; the first two turned round."""
    for is_turned in (False, True):
        changed = bytearray(data)
        for start in range(2 * SMALL_PAGE_BYTES, len(data), SMALL_PAGE_BYTES):
            _, kind, lower, _, *two = struct.unpack_from("<Q2xHHHHH", data, start)
            if kind == 2 and lower >= 20:
                new = two[::-1] if is_turned else [SMALL_PAGE_BYTES - 2, two[1]]
                struct.pack_into("<HH", changed, start + 16, *new)
        yield bytes(changed)


def _smaller(data: bytes) -> bytes:
    """Write a file with pages of an eighth: what is on a page is at its ends."""
    pages = []
    less = PAGE_BYTES - SMALL_PAGE_BYTES
    for start in range(0, len(data), PAGE_BYTES):
        page = bytearray(data[start : start + PAGE_BYTES])
        _, kind, lower, upper = struct.unpack_from("<Q2xHHH", page)
        half = min(max(lower, 16), SMALL_PAGE_BYTES)
        if kind & 8:
            struct.pack_into("<I", page, 40, SMALL_PAGE_BYTES)
            pages.append(page[:SMALL_PAGE_BYTES])
            continue
        if kind in {1, 2} and lower + PAGE_BYTES - upper <= SMALL_PAGE_BYTES:
            places = struct.unpack_from(f"<{(lower - 16) // 2}H", page, 16)
            struct.pack_into("<H", page, 14, upper - less)
            moved = [place - less for place in places]
            struct.pack_into(f"<{len(moved)}H", page, 16, *moved)
        pages.append(page[:half] + page[half + less :])
    return b"".join(pages)


SEEDS: dict[str, Callable[[], list[bytes]]] = {
    "framing": _framing,
    "two_speeds": _two_speeds,
    "vote_wire": _streams,
    "vote_lines": _lines,
    "wire_import": _streams,
    "moment": _words("0", "17", "2026-11-26", "2026-11-26T14:30:00.5+01:00", "24:00"),
    "address": _words("host:1", "a@[::1]:0", "[fe80::1%eth0]:65535", ":1", "é@h:80"),
    "connector_frames": _bodies,
    "connector_in": _senders,
    "connector_client": _servers,
    "connector_out": _sinks,
    "connector_receiver": _upstreams,
    "http": _requests,
    "block": lambda: [block.encoded for block in _blocks()],
    "block_scan": _scans,
    "row": _rows,
    "snapshot": _snapshots,
    "state": lambda: [b"", b"a" + bytes(8) + b"b" + bytes(7) + b"\1"],
    "transaction_log": _transaction_logs,
    "lmdb_tree": _files,
    "raw_pages": _files,
}
"""By target."""
