"""What becomes of a damaged log's remains: the plan of the new log.

- Every block that was taken stays at its own sequences; what is missing between, or
  is known to have been behind the last, is a gap.
- The new log begins where the old one did, if its state there is known; where its
  beginning is lost, at the newest snapshot before the first block; else at 0.
- A snapshot goes along unless the blocks contradict it, and a gap is cut where one
  was taken: the events before the cut are lost, and their effect is not.
- A sink goes on where its outputs can be right again.

Pure: values in, a plan out.
"""

import itertools
from collections.abc import Iterable, Iterator, Sequence

import attrs
import numpy as np

from log.block import Tail
from log.row import Cursor
from recovery.damage.block_scan import Candidates
from recovery.damage.remains import Remains
from recovery.snapshot import Snapshot


@attrs.frozen
class Gap:
    """Lost events, `first` to `last` (both inclusive).

    `block_bytes` is what their blocks took, None where nothing tells. With
    `is_counted` a snapshot that goes along, or the base, has them in its state.
    """

    first: int
    last: int
    block_bytes: int | None
    is_counted: bool


@attrs.frozen
class Move:
    """A sink that goes on elsewhere than it was."""

    sink: str
    before: int
    after: int


@attrs.frozen
class Ignored:
    """Something found that is not in the new log, and why."""

    what: str
    reason: str


@attrs.frozen
class Piece:
    """A part of the new log: `blocks` that were found, or a gap of `count` events."""

    first: int
    blocks: Candidates | None = None
    count: int = 0


@attrs.frozen
class Plan:
    """The new log, as it is to be written.

    `base_state` is None where it begins at 0. `is_base_lost` says that the old one's
    state at its base is gone, and no snapshot has taken its place. `settled` is the
    last event that is stored or counted.
    """

    base: Tail
    base_state: Snapshot | None
    pieces: tuple[Piece, ...]
    gaps: tuple[Gap, ...]
    snapshots: tuple[Snapshot, ...]
    cursors: dict[str, Cursor]
    moves: tuple[Move, ...]
    ignored: tuple[Ignored, ...]
    settled: int
    is_base_lost: bool


def make_plan(remains: Remains, snapshots: Sequence[Snapshot]) -> Plan:
    """Plan the new log; `snapshots` are those beside the old one that are whole."""
    blocks = remains.chain.blocks
    ignored = []
    usable = []
    for snapshot in sorted(snapshots, key=lambda each: each.sequence):
        fault = contradiction(remains, snapshot)
        if fault is None:
            usable.append(snapshot)
        else:
            ignored.append(Ignored(f"snapshot {snapshot.sequence}", fault))
    base, base_state = _new_base(remains, usable)
    carried = tuple(each for each in usable if each.sequence > base.sequence)
    counted = max([base.sequence, *(each.sequence for each in carried)])
    last_found = int(blocks["last"][-1]) if len(blocks) else 0
    end = max(counted, last_found, remains.last_known)
    missing = list(_missing(blocks, base.sequence, end))
    # What the base stands for was there once, and is not any more.
    behind_base = (remains.base.sequence + 1, base.sequence)
    lost = [behind_base] if behind_base[0] <= behind_base[1] else []
    gaps = tuple(
        Gap(first, last, remains.live.bytes_between(first, last), last <= counted)
        for first, last in [*lost, *missing]
    )
    cursors, moves = _place_sinks(remains.rows.cursors, base, missing, carried)
    return Plan(
        base=base,
        base_state=base_state,
        pieces=tuple(_pieces(blocks, missing, carried)),
        gaps=gaps,
        snapshots=carried,
        cursors=cursors,
        moves=moves,
        ignored=tuple(ignored),
        settled=max(counted, last_found),
        is_base_lost=remains.is_base_lost and base_state is None,
    )


def contradiction(remains: Remains, snapshot: Snapshot) -> str | None:
    """Say why a snapshot cannot be one of this log, or None if it can.

    One whose block is lost is believed, as far as the blocks around it allow.
    """
    sequence = snapshot.sequence
    witness = (snapshot.block_sequence, snapshot.block_checksum)
    base = remains.base
    if remains.log_id and snapshot.log_id != remains.log_id:
        return f"it belongs to another log, {snapshot.log_id}"
    if sequence < base.sequence:
        return "it is older than the log's base"
    blocks = remains.chain.blocks
    index = int(np.searchsorted(blocks["first"], np.uint64(sequence), "right"))
    low = _end(blocks, index - 1)
    if low is not None and low[0] >= sequence:
        expected = low if low[0] == sequence else _link(blocks, index - 1)
        is_possible = witness == expected
    else:
        is_base_told = remains.base_state is not None or remains.rows.meta is not None
        before = low or (base.sequence, base.checksum)
        is_possible = before[0] <= witness[0] <= sequence
        for place in (low or (before if is_base_told else None), _link(blocks, index)):
            if place is not None and place[0] == witness[0]:
                is_possible = is_possible and witness == place
    return None if is_possible else "it does not stand on the log's blocks"


def _end(blocks: Candidates, index: int) -> tuple[int, int] | None:
    """Give sequence and checksum at a block's end."""
    if index < 0:
        return None
    return int(blocks["last"][index]), int(blocks["checksum"][index])


def _link(blocks: Candidates, index: int) -> tuple[int, int] | None:
    """Give sequence and checksum that a block follows."""
    if not 0 <= index < len(blocks):
        return None
    return int(blocks["first"][index]) - 1, int(blocks["previous_checksum"][index])


def _new_base(
    remains: Remains, usable: Sequence[Snapshot]
) -> tuple[Tail, Snapshot | None]:
    """Choose where the new log begins, and the state there."""
    blocks, base = remains.chain.blocks, remains.base
    lowest = base.sequence if remains.is_base_lost else base.sequence + 1
    options = [
        each
        for each in usable
        if each.sequence >= lowest
        and (not len(blocks) or each.sequence < int(blocks["first"][0]))
    ]
    if options:
        newest = options[-1]
        checksum = newest.block_checksum
        link = _link(blocks, 0)
        if link is not None and link[0] == newest.sequence:
            checksum = link[1]
        return Tail(newest.sequence, checksum), newest
    if remains.is_base_lost:
        return Tail(0, 0), None
    return base, remains.base_state


def _missing(blocks: Candidates, base: int, end: int) -> Iterator[tuple[int, int]]:
    """Give the first and last of each run of events that no block has."""
    before = np.concatenate([[np.uint64(base)], blocks["last"]])
    until = np.concatenate([blocks["first"] - np.uint64(1), [np.uint64(end)]])
    for place in np.flatnonzero(before < until):
        yield int(before[place]) + 1, int(until[place])


def _pieces(
    blocks: Candidates,
    missing: Iterable[tuple[int, int]],
    carried: Sequence[Snapshot],
) -> Iterator[Piece]:
    """Give blocks and gaps in order; a gap is cut behind each snapshot in it."""
    done = 0
    for first, last in missing:
        place = int(np.searchsorted(blocks["first"], np.uint64(first)))
        if place > done:
            yield Piece(int(blocks["first"][done]), blocks[done:place])
        done = place
        cuts = [each.sequence for each in carried if first <= each.sequence < last]
        for before, end in itertools.pairwise([first - 1, *sorted(set(cuts)), last]):
            yield Piece(before + 1, count=end - before)
    if done < len(blocks):
        yield Piece(int(blocks["first"][done]), blocks[done:])


def _place_sinks(
    cursors: dict[str, Cursor],
    base: Tail,
    missing: Sequence[tuple[int, int]],
    carried: Sequence[Snapshot],
) -> tuple[dict[str, Cursor], tuple[Move, ...]]:
    """Move the sinks that cannot go on where they are.

    Behind a gap outputs are right from a snapshot on. Without one a sink only leaves
    the gap that it is in.
    """
    ends = [last for _, last in missing]
    sound = [each.sequence for each in carried if ends and each.sequence >= ends[-1]]
    placed = dict(cursors)
    moves = []
    for name, cursor in sorted(cursors.items()):
        at = max(cursor.sequence, base.sequence, *sound[:1])
        if not sound:
            at = max([at, *(last for first, last in missing if first <= at < last)])
        if at != cursor.sequence:
            placed[name] = attrs.evolve(cursor, sequence=at)
            moves.append(Move(name, cursor.sequence, at))
    return placed, tuple(moves)
