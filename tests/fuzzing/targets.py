"""The table of what is fuzzed: for a new parser, add an entry.

A target takes any bytes and raises, AssertionError or anything else, where the code
under it breaks its word. What it takes is kept in `tests/corpus/NAME`.
"""

import functools
import hashlib
from collections.abc import Callable
from pathlib import Path

import attrs

from tests.fuzzing import (
    connector_targets,
    http_targets,
    lmdb_targets,
    log_targets,
    seals,
    wire_targets,
)

CORPUS = Path(__file__).parent.parent / "corpus"


def _as_it_is(data: bytes) -> bytes:
    return data


@attrs.frozen
class Target:
    """One thing that is fuzzed.

    Attributes:
        run: Takes an input.
        seal: Mends the checksums of an input that was changed, so that the change is
            met and not only noticed.
        words: What an input is likely to hold, for a fuzzer to put in.
    """

    run: Callable[[bytes], None]
    seal: Callable[[bytes], bytes] = _as_it_is
    words: tuple[bytes, ...] = ()

    @property
    def name(self) -> str:
        """What it is called."""
        return self.run.__name__

    @property
    def corpus(self) -> Path:
        """Where its inputs are kept."""
        return CORPUS / self.name

    def inputs(self) -> list[bytes]:
        """Read the inputs that are kept, in the order of their names."""
        return _contents(self.corpus)


@functools.cache
def _contents(directory: Path) -> list[bytes]:
    return [path.read_bytes() for path in sorted(directory.glob("*"))]


def file_name(data: bytes) -> str:
    """Name an input by its checksum, as libFuzzer does."""
    return hashlib.sha1(data).hexdigest()  # noqa: S324 - a name, and no secret


_JSON = (b'"', b"{", b"}", b"[", b"]", b"null", b"-1", b"1e9", b"NaN", b'""', b"true")
_VOTE = (b"\0\0\0\x05a\0\0\0\x01", b"\0\0\0\0", b"\0\0\0\x64", b"\xff\xff\xff\xff")
_HTTP = (b"GET ", b" HTTP/1.1\r\n", b"Host: a\r\n", b"\r\n\r\n", b"/votes/%", b"?at=")
_CONNECTOR = (b"0.0.1", b"v0.0.1", b"\xff" * 8, b"\0\0\0", b"\xc9", b"\xcb", b"\xcd")

TARGETS = {
    target.name: target
    for target in (
        Target(wire_targets.framing, words=_VOTE),
        Target(wire_targets.two_speeds, words=_VOTE),
        Target(wire_targets.vote_wire, words=_VOTE),
        Target(wire_targets.vote_lines, words=(b"\\x", b"# ", b"\n", b"4294967296")),
        Target(wire_targets.wire_import, words=_VOTE),
        Target(wire_targets.moment, words=(b"2026-11-26T14:30:00Z", b".5", b"+01:00")),
        Target(wire_targets.address, words=(b"[::1]:1", b"@", b",", b"%", b":65535")),
        Target(connector_targets.connector_frames, words=_CONNECTOR),
        Target(connector_targets.connector_in, words=_CONNECTOR),
        Target(connector_targets.connector_client, words=_CONNECTOR),
        Target(connector_targets.connector_out, words=_CONNECTOR),
        Target(connector_targets.connector_receiver, words=_CONNECTOR),
        Target(http_targets.http, words=_HTTP),
        Target(log_targets.block, seals.seal_block),
        Target(log_targets.block_scan, seals.seal_blocks, (b"\xabBLK\1",)),
        Target(log_targets.row, seals.seal_row_value, _JSON),
        Target(log_targets.snapshot, seals.seal_snapshot, _JSON),
        Target(log_targets.state),
        Target(log_targets.transaction_log, seals.seal_lines, (b"prepared ", b" - ")),
        Target(lmdb_targets.lmdb_tree),
        Target(lmdb_targets.raw_pages, seals.seal_rows),
    )
}
