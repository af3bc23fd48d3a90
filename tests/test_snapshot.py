"""A snapshot's bytes: they say all of it, and nothing else is taken for one."""

import itertools
import json
import struct
import zlib

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from recovery.errors import SnapshotError
from recovery.snapshot import FORMAT_VERSION, MAGIC, Snapshot, State, has_checksum
from tests import samples

states = st.builds(State, st.text(max_size=10), st.text(max_size=6), st.binary())
snapshots = st.builds(
    Snapshot,
    log_id=st.text(max_size=40),
    sequence=samples.u64,
    block_sequence=samples.u64,
    block_checksum=samples.u32,
    application=st.text(max_size=20),
    state_version=st.integers(),
    states=st.lists(states, max_size=4).map(tuple),
)

SNAPSHOT = Snapshot(
    log_id="0123456789abcdef",
    sequence=12,
    block_sequence=10,
    block_checksum=0xDEADBEEF,
    application="alphabet",
    state_version=1,
    states=(State("letter state", "dump", b"a" + bytes(8)), State("e", "pickle", b"")),
)
ENCODED = SNAPSHOT.encode()


def sealed(header: bytes, data: bytes = b"", version: int = FORMAT_VERSION) -> bytes:
    """Make a snapshot's bytes around any header, with a checksum that is right."""
    content = struct.pack(">5sBI", MAGIC, version, len(header)) + header + data
    return content + zlib.crc32(content).to_bytes(4)


class TestChecksum:
    """The checksum at the end, without having all at once."""

    @given(snapshot=snapshots, cuts=st.lists(st.integers(0, 200)), at=st.integers(0))
    def test_in_pieces(self, snapshot: Snapshot, cuts: list[int], at: int) -> None:
        """It is right in any pieces, and wrong once any bit of all is changed."""
        encoded = snapshot.encode()
        ends = sorted({0, len(encoded), *(cut for cut in cuts if cut < len(encoded))})
        pieces = [encoded[start:end] for start, end in itertools.pairwise(ends)]
        assert has_checksum(pieces)
        place, bit = divmod(at % (8 * len(encoded)), 8)
        changed = bytearray(encoded)
        changed[place] ^= 1 << bit
        assert not has_checksum([bytes(changed)])
        assert not has_checksum([encoded[:-1]])
        assert not has_checksum([encoded[:3]])


class TestRoundTrip:
    """To bytes, and back."""

    @given(snapshot=snapshots)
    def test_it_comes_back(self, snapshot: Snapshot) -> None:
        """What was encoded is decoded, whatever its fields and states are."""
        encoded = snapshot.encode()
        assert Snapshot.decode(encoded) == snapshot
        assert Snapshot.decode(encoded).encode() == encoded

    @given(one=snapshots, other=snapshots)
    def test_no_two_are_alike(self, one: Snapshot, other: Snapshot) -> None:
        """Two snapshots that differ have bytes that differ."""
        assert (one == other) == (one.encode() == other.encode())

    def test_it_is_made_as_the_grammar_says(self) -> None:
        """The header is JSON, the states stand behind it, a CRC-32 ends it."""
        magic, version, header_bytes = struct.unpack_from(">5sBI", ENCODED)
        assert (magic, version) == (b"\xabSNAP", 1)
        header = json.loads(ENCODED[10 : 10 + header_bytes])
        assert list(header) == sorted(header)
        assert header == {
            "application": "alphabet",
            "block_checksum": 0xDEADBEEF,
            "block_sequence": 10,
            "log_id": "0123456789abcdef",
            "sequence": 12,
            "state_version": 1,
            "states": [["letter state", "dump", 9], ["e", "pickle", 0]],
        }
        assert ENCODED[10 + header_bytes : -4] == b"a" + bytes(8)
        assert ENCODED[-4:] == zlib.crc32(ENCODED[:-4]).to_bytes(4)

    def test_a_states_bytes_are_not_shown(self) -> None:
        """A large state does not fill the screen when a snapshot is printed."""
        shown = repr(attrs.evolve(SNAPSHOT, states=(State("s", "dump", b"Q" * 99),)))
        assert "QQ" not in shown


class TestDamage:
    """Bytes that are no snapshot."""

    @pytest.mark.parametrize("difference", [0x01, 0x80, 0xFF])
    def test_every_changed_byte_is_noticed(self, difference: int) -> None:
        """Whichever byte changes, the snapshot is refused."""
        for place in range(len(ENCODED)):
            changed = bytearray(ENCODED)
            changed[place] ^= difference
            with pytest.raises(SnapshotError):
                Snapshot.decode(bytes(changed))

    def test_every_cut_is_noticed(self) -> None:
        """Wherever it is cut, at its end or its beginning, it is refused."""
        for size in range(len(ENCODED)):
            for cut in (ENCODED[:size], ENCODED[len(ENCODED) - size :]):
                with pytest.raises(SnapshotError):
                    Snapshot.decode(cut)

    @given(more=st.binary(min_size=1, max_size=30))
    def test_more_bytes_are_noticed(self, more: bytes) -> None:
        """Bytes before or behind it are noticed."""
        for longer in (ENCODED + more, more + ENCODED):
            with pytest.raises(SnapshotError):
                Snapshot.decode(longer)

    @given(data=st.binary(max_size=300))
    def test_anything_else_is_refused(self, data: bytes) -> None:
        """Random bytes, with or without the magic, are refused and never crash."""
        for each in (data, MAGIC + data, sealed(data), sealed(b"{}", data)):
            with pytest.raises(SnapshotError):
                Snapshot.decode(each)

    @pytest.mark.parametrize(
        ("data", "reason"),
        [
            (b"", "0 bytes are too few"),
            (b"x" + ENCODED[1:], "does not begin with a snapshot's magic"),
            (ENCODED[:-1] + b"x", "its checksum does not match"),
            (sealed(b"{}", version=2), "its format version is 2"),
            (sealed(b"[1]"), "its header is not a snapshot's"),
            (sealed(b"\xff"), "its header is not a snapshot's"),
            (sealed(b'{"states": []}'), "its header is not a snapshot's"),
            (sealed(b'{"states": [["s", "dump"]]}'), "its header is not a snapshot's"),
            (sealed(b'{"states": [["s", "dump", 3]]}', b"ab"), "fill 2 bytes, not 3"),
            (sealed(b'{"states": []}', b"ab"), "fill 2 bytes, not 0"),
            (sealed(ENCODED[10:-13].replace(b"12,", b'"1",'), bytes(9)), "sequence is"),
            (sealed(b'{"states": [["a", "", 2], ["b", "", -1]]}', b"a"), "negative"),
            (sealed(b"[" * 100_000), "recursion"),
        ],
    )
    def test_the_reason_is_said(self, data: bytes, reason: str) -> None:
        """A refusal says what is wrong, in one line."""
        with pytest.raises(SnapshotError, match=reason) as caught:
            Snapshot.decode(data)
        assert "\n" not in str(caught.value)
