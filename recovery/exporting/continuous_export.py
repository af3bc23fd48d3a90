"""Votes as segments, for as long as the log grows, beside what was counted of each.

Invariants:

- a segment is named, durably, before any of it is written (`intent`), and whatever
  ends a run, the next one writes that very segment first: a range of events exists
  under one name only, also for a reader that saw what a power cut took away;
- a segment begins and ends where a block does, but for an operator's first one;
- what was counted is what a replay of the whole log counts;
- a log that is not the one of the newest segment, up to its end, is never added.

Between two looks at a log nothing of it is open. The edge: files.
"""

import functools
from collections.abc import Iterator
from typing import BinaryIO

import attrs

from log.log import Log
from recovery.exporting.event_columns import Form
from recovery.exporting.export import (
    BRING_BACK,
    ExportDirectory,
    ExportError,
    Written,
    block_holding,
    check_follows,
    check_log,
    check_witness,
    failures_of,
)
from recovery.exporting.intent import INTENT, read_intent, write_intent
from recovery.exporting.parquet_file import write_segment
from recovery.exporting.segment import Label, LabelError, Plan
from recovery.exporting.tally import Tally
from recovery.follower import ReplacedError
from recovery.replay import Replayer


@attrs.define
class ContinuousExport:
    """An export that goes on, look by look, in a directory that is held.

    `server` is the name in each row; None: the one that is there, else the log's id.
    `events_max` is how many events a segment may have, unless one block has more. A
    new export begins behind `after`; None: the log's base.
    """

    directory: ExportDirectory
    tally: Tally
    server: str | None
    events_max: int
    after: int | None = None
    _log_id: str = attrs.field(default="", init=False)

    def begin(self, log: Log) -> list[str]:
        """Settle what is written, and clear up behind an earlier run.

        Gives the names of files removed. Raises what `catch_up` raises.
        """
        with failures_of(self.directory.path):
            found = self._check(log)
        if self.server is None:
            told = None if found is None else found.server
            self.server = log.meta.log_id if told is None else told
        self._log_id = log.meta.log_id
        return self.directory.prepare()

    def catch_up(self, replayer: Replayer) -> Iterator[Written]:
        """Write what a log has and the directory lacks; gives each durable segment.

        Raises ExportError for a log that may not be added, ReplacedError for another
        than the one begun with, DirectoryError for a directory that cannot be
        written, and what `Tally.replay` raises.
        """
        log = replayer.log
        if log.meta.log_id != self._log_id:
            reason = f"it is log {log.meta.log_id}, not {self._log_id}"
            raise ReplacedError(log.store.path, reason)
        with failures_of(self.directory.path):
            intent = self._check(log)
            while (label := self._next(log, intent)) is not None:
                yield self._write(replayer, label)
                intent = None

    def _check(self, log: Log) -> Label | None:
        """Give the label of what is, or was to be, written last; None: nothing yet."""
        directory = self.directory
        try:
            intent = read_intent(directory.path)
        except LabelError as error:
            raise ExportError(
                f"{directory.path / INTENT}: {error}; remove it if no reader has seen "
                "a segment that is not there now"
            ) from error
        reached = directory.last_sequence or 0
        is_written = intent is None or intent.last_sequence <= reached
        form = Form(log.meta, self.server or "")
        found = directory.check(log, form, is_removable=is_written)
        if intent is not None and not is_written:
            self._check_intent(log, intent)
            found = intent
        if found is not None and self.server not in {None, found.server}:
            raise ExportError(
                f"{directory.path} is of server {found.server!r}, not {self.server!r}: "
                "go on so, or choose another directory"
            )
        return found

    def _check_intent(self, log: Log, intent: Label) -> None:
        """Raise ExportError unless what was to be written can be, as it was to be."""
        path, segment = self.directory.path, intent.segment
        check_log(path, segment, log)
        if self.directory.newest is not None:
            check_follows(path, self.directory.newest, segment, BRING_BACK)
        elif segment.first_sequence != (begin := self._begin_of(log)) + 1:
            raise ExportError(
                f"{path} was begun with --after {segment.first_sequence - 1}, not "
                f"{begin}: go on so, or choose another directory"
            )
        check_witness(log, path / segment.file, intent)

    def _begin_of(self, log: Log) -> int:
        return log.base.sequence if self.after is None else self.after

    def _next(self, log: Log, intent: Label | None) -> Label | None:
        """Settle what is written next, durably; None if all there is was written."""
        after = self.directory.last_sequence
        if after is None:
            after = self._begin_of(log)
        if intent is not None and intent.last_sequence > after:
            return intent
        until = log.tail.sequence
        if after >= until:
            return None
        look = functools.partial(block_holding, log)
        plan = Plan(log.meta.log_id, False, self.events_max, look)  # noqa: FBT003 - by size
        segment = plan.next_segment(after, until)
        end = look(segment.last_sequence)
        label = Label.of(segment, log.meta, end, [], self.server)
        write_intent(self.directory.path, label)
        return label

    def _write(self, replayer: Replayer, label: Label) -> Written:
        segment = label.segment
        form = Form(replayer.log.meta, self.server)

        def fill(stream: BinaryIO) -> Label:
            blocks = self.tally.replay(replayer, segment.first_sequence - 1)
            return write_segment(stream, segment, form, blocks, lambda _reached: None)

        return self.directory.write(segment, fill)
