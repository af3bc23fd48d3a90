"""Which of the blocks that were found are the log's: the best chain through them.

A block follows another if it begins after the other's last event, names its checksum
and is not older. Where blocks are missing the chain goes on behind the gap, with a
block that something vouches for, that is not older than what is before the gap, and
whose own predecessor is not there: one that follows a block which was not taken
belongs to that one's branch. Of all chains the one is taken that has most events of
the blocks known to be the log's, then most events, then the newest end; so of two
versions of an event never both are taken, and the choice is always the same. What is
behind a gap may be of another branch all the same: nothing in a block tells.

Pure: numbers in, numbers out.
"""

import bisect
from collections import defaultdict

import attrs
import numpy as np
import numpy.typing as npt

from log.block import Tail
from recovery.damage.block_scan import Candidates

Marks = npt.NDArray[np.bool_]


@attrs.frozen
class Chain:
    """The blocks that were taken, in order, as rows of the candidates.

    `is_known` marks those that were known to be the log's. `others` are those that
    were not taken, each a version of its own; further copies of the same block are in
    neither.
    """

    blocks: Candidates
    is_known: Marks
    others: Candidates
    copies: int


@attrs.define
class _Segment:
    """Rows `start` to `stop` (exclusive) that follow each other and nothing else."""

    start: int
    stop: int
    first: int
    last: int
    link: tuple[int, int]
    """The sequence and checksum that its first block follows."""
    end: tuple[int, int]
    """The sequence and checksum of its last block."""
    start_ns: int
    end_ns: int
    value: tuple[int, int]
    """Its events in known blocks, and all its events."""
    is_trusted: bool
    best: tuple[int, int, int] | None = None
    before: "_Segment | None" = None


def choose_chain(
    candidates: Candidates, base: Tail, known: Marks, trusted: Marks, *, is_strict: bool
) -> Chain:
    """Choose the log's blocks among those found.

    `known` marks what is certainly the log's. A block behind a gap must be `trusted`,
    or lead to one that is; with `is_strict` every block must.
    """
    rows, marks, copies = _without_copies(candidates, np.array([known, trusted]))
    is_later = rows["first"] > base.sequence
    earlier = rows[~is_later]
    rows, (known, trusted) = rows[is_later], marks[:, is_later]
    segments = _segments(rows, known, trusted)
    taken = np.zeros(len(rows), np.bool_)
    segment = _best(segments, base, is_strict=is_strict)
    while segment is not None:
        taken[segment.start : segment.stop] = True
        segment = segment.before
    others = np.concatenate([earlier, rows[~taken]])
    return Chain(rows[taken], known[taken], others, copies)


def _without_copies(
    candidates: Candidates, marks: Marks
) -> tuple[Candidates, Marks, int]:
    """Sort by sequence and keep one of equal blocks: a marked one, else the first."""
    columns = ("first", "last", "previous_checksum", "checksum", "block_bytes")
    sort_keys = [candidates["offset"], ~marks[1], ~marks[0]]
    order = np.lexsort([*sort_keys, *(candidates[name] for name in columns[::-1])])
    rows, marks = candidates[order], marks[:, order]
    is_new = np.ones(len(rows), np.bool_)
    is_new[1:] = np.any([rows[name][1:] != rows[name][:-1] for name in columns], axis=0)
    return rows[is_new], marks[:, is_new], int(len(rows) - is_new.sum())


def _segments(rows: Candidates, known: Marks, trusted: Marks) -> list[_Segment]:
    """Cut the sorted rows where the choice has to be made, and nowhere else."""
    count = len(rows)
    if not count:
        return []
    first, last = rows["first"], rows["last"]
    is_linked = np.zeros(count, np.bool_)
    is_linked[1:] = (
        (first[1:] - 1 == last[:-1])
        & (rows["previous_checksum"][1:] == rows["checksum"][:-1])
        & (rows["time_ns"][1:] >= rows["time_ns"][:-1])
        & (trusted[1:] == trusted[:-1])
        & _has_own_end(rows)[:-1]
    )
    # A chain may end amid newer blocks, for what is older than the rest of them.
    times = rows["time_ns"]
    is_older = ~is_linked & (times < np.maximum.accumulate(times))
    passed = np.searchsorted(np.unique(times[is_older]), times)
    is_linked[1:] &= passed[1:] == passed[:-1]
    # The last block may be left out, for one that begins with or amid its events.
    ends = np.append(np.flatnonzero(~is_linked)[1:] - 1, count - 1)
    is_linked[ends] = False
    starts = np.flatnonzero(~is_linked)
    stops = np.append(starts[1:], count)
    events = np.where(rows["is_gap"], np.uint64(0), last - first + np.uint64(1))
    totals = np.add.reduceat(events, starts)
    known_totals = np.add.reduceat(np.where(known, events, np.uint64(0)), starts)
    return [
        _segment(rows, int(start), int(stop), (int(of_known), int(total)), trusted)
        for start, stop, of_known, total in zip(
            starts, stops, known_totals, totals, strict=True
        )
    ]


def _has_own_end(rows: Candidates) -> Marks:
    """Mark those that no other ends like: what follows the others follows them all."""
    order = np.lexsort((rows["checksum"], rows["last"]))
    ends = rows[["last", "checksum"]][order]
    is_same = ends[1:] == ends[:-1]
    marks = np.ones(len(rows), np.bool_)
    marks[order[1:][is_same]] = False
    marks[order[:-1][is_same]] = False
    return marks


def _segment(
    rows: Candidates, start: int, stop: int, value: tuple[int, int], trusted: Marks
) -> _Segment:
    head, end = rows[start], rows[stop - 1]
    return _Segment(
        start=start,
        stop=stop,
        first=int(head["first"]),
        last=int(end["last"]),
        link=(int(head["first"]) - 1, int(head["previous_checksum"])),
        end=(int(end["last"]), int(end["checksum"])),
        start_ns=int(head["time_ns"]),
        end_ns=int(end["time_ns"]),
        value=value,
        is_trusted=bool(trusted[start:stop].any()),
    )


@attrs.define
class _Ended:
    """Segments that a gap may follow, by the time of their end.

    Those are left out that are no better than one that is no newer, so that of what
    is left the newest is the best.
    """

    _segments: list[_Segment] = attrs.Factory(list)

    def add(self, segment: _Segment) -> None:
        """Let a gap follow a segment too, if it has a value."""
        place = bisect.bisect_right(
            self._segments, segment.end_ns, key=lambda each: each.end_ns
        )
        before = self._segments[place - 1] if place else None
        if _better(before, segment) is before:
            return
        stop = place
        while (
            stop < len(self._segments)
            and _better(segment, self._segments[stop]) is segment
        ):
            stop += 1
        self._segments[place:stop] = [segment]

    def best_until(self, time_ns: int) -> _Segment | None:
        """Give the best of those that ended by a time (inclusive)."""
        place = bisect.bisect_right(
            self._segments, time_ns, key=lambda each: each.end_ns
        )
        return self._segments[place - 1] if place else None


def _best(segments: list[_Segment], base: Tail, *, is_strict: bool) -> _Segment | None:
    """Give the last segment of the best chain; `before` leads back from it."""
    by_end: defaultdict[tuple[int, int], list[_Segment]] = defaultdict(list)
    for segment in segments:
        by_end[segment.end].append(segment)
    for segment in reversed(segments):
        if segment.is_trusted:
            for before in by_end[segment.link]:
                before.is_trusted |= before.end_ns <= segment.start_ns
    waiting = sorted(segments, key=lambda each: each.last, reverse=True)
    ended = _Ended()
    best: _Segment | None = None
    for segment in segments:
        while waiting and waiting[-1].last + 1 < segment.first:
            ended.add(waiting.pop())
        behind = ended.best_until(segment.start_ns)
        _join(segment, by_end[segment.link], behind, base, is_strict=is_strict)
        best = _better(best, segment)
    return best


def _join(
    segment: _Segment,
    linked: list[_Segment],
    behind: _Segment | None,
    base: Tail,
    *,
    is_strict: bool,
) -> None:
    """Give a segment the best that can come before it, and its value with that.

    It has none, and is never taken, where nothing can.
    """
    if is_strict and not segment.is_trusted:
        return
    options = [before for before in linked if before.end_ns <= segment.start_ns]
    is_root = not options
    if is_root and segment.first > base.sequence + 1:
        options = [behind] if behind is not None else []
    elif is_root and segment.link != (base.sequence, base.checksum):
        return
    if is_root and not segment.is_trusted:
        return
    before = None
    for option in options:
        before = _better(before, option)
    if before is None and not is_root:
        return
    of_known, events, _ = (before and before.best) or (0, 0, 0)
    segment.before = before
    segment.best = (
        of_known + segment.value[0],
        events + segment.value[1],
        segment.end_ns,
    )


def _better(one: _Segment | None, other: _Segment) -> _Segment | None:
    if other.best is None:
        return one
    if one is None or one.best is None or other.best > one.best:
        return other
    return one
