"""`alphabet-replay events`: the events themselves, as text or as frames."""

import contextlib
import os
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path

import attrs
import click

from alphabet.command_line import CannotServeError, option
from alphabet.pipeline.machine import Machine
from alphabet.records.event_fields import event_columns, event_fields
from alphabet.records.record_frames import FrameFormError, check_headers, frame_records
from log.block import SEQUENCE_MAX
from log.log import Log
from recovery.commands.endless import ended_by_signal, interval_option, is_read_for
from recovery.commands.moment_type import MomentType
from recovery.commands.place import (
    Place,
    data_dir_argument,
    format_options,
    machine_option,
    opened,
)
from recovery.commands.progress import progress
from recovery.event_reader import EventReader, find_end
from recovery.event_text import CSV, JSON, LINES, EventText, Part, raw_fields
from recovery.moment import Instant, Moment, find_sequence

WIRE = "wire"
HEADER_BYTES = 4
"""The size of a header where no application says it: what `alphabet send` reads."""

_HEADER_OF_RAW = "record"


@attrs.frozen
class Form:
    """How events are printed: what stands before the first, and what a part becomes."""

    header: bytes
    write: Callable[[Part], bytes]


@attrs.frozen
class Bounds:
    """Which events: after `after` (exclusive) until `until` (inclusive)."""

    after: int
    until: int


@attrs.frozen
class EventPrinter:
    """Prints what a reader reads, of one pipeline or (None) of all."""

    reader: EventReader
    form: Form
    pipeline: int | None
    put: Callable[[bytes], None]
    show: Callable[[int], None]

    def look(self, place: Place, until: int) -> None:
        """Print the events that were not, up to `until` (inclusive); see the reader."""
        for part in self.reader.look(place.replayer, until):
            if part.records.is_gap:
                lost = f"{part.first_sequence} to {part.last_sequence}"
                click.echo(f"events {lost} are lost", err=True)
            elif self.pipeline in {None, part.pipeline}:
                self.put(self.form.write(part))
            self.show(part.last_sequence)


@click.command()
@data_dir_argument
@option(
    "--after",
    type=MomentType(),
    metavar="SEQ|TIME",
    help="Begin behind this event or time, exclusive.  [default: the log's base]",
)
@option(
    "--until",
    type=MomentType(),
    metavar="SEQ|TIME",
    help="End with this event or time, inclusive.  [default: the log's end]",
)
@option(
    "--last",
    type=click.IntRange(min=0),
    metavar="N",
    help="Only the last N events before that end; 0 with --follow: new ones alone.",
)
@option("--follow", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@interval_option("--follow")
@option("--raw", is_flag=True, help="Records in hex: needs no application.")
@option("--pipeline", metavar="NAME", help="Only this pipeline's events.")
@option("--accept-gaps", is_flag=True, help="Pass over events that are lost.")
@machine_option
@format_options(LINES, JSON, CSV, WIRE)
def events(
    *,
    data_dir: Path,
    after: Moment | None,
    until: Moment | None,
    last: int | None,
    follow: bool,
    interval_seconds: float,
    raw: bool,
    pipeline: str | None,
    accept_gaps: bool,
    application_module: str | None,
    format_: str,
) -> None:
    """Print the events in order, after --after (exclusive) to --until (inclusive).

    Lines are LETTER VOTES, which `alphabet send --format lines` reads; wire is what
    it reads by default. JSON lines and CSV tell each event's sequence and time too.
    """

    def look(*, is_first: bool) -> AbstractContextManager[Place]:
        return opened(
            data_dir,
            application_module,
            needs_machine=is_first and not raw,
            are_gaps_accepted=accept_gaps,
            is_damage_accepted=True,  # What comes before the damage is printed.
        )

    with contextlib.ExitStack() as stack:
        put = stack.enter_context(_output())
        if follow:
            stack.enter_context(ended_by_signal())
        with look(is_first=True) as place:
            number = _pipeline_number(place.log, pipeline, format_)
            bounds = _find_bounds(place.log, after, until, last, is_followed=follow)
            form = _form(place, format_, is_raw=raw)
            put(form.header)
            with _file_progress(bounds, is_followed=follow) as show:
                reader = EventReader(bounds.after)
                printer = EventPrinter(reader, form, number, put, show)
                printer.look(place, bounds.until)
        while follow and reader.reached < bounds.until:
            if not is_read_for(interval_seconds):
                return
            with look(is_first=False) as place:
                printer.look(place, bounds.until)


def _find_bounds(
    log: Log,
    after: Moment | None,
    until: Moment | None,
    last: int | None,
    *,
    is_followed: bool,
) -> Bounds:
    """Settle which events are asked for; raises UsageError for what cannot be."""
    if last is not None and after is not None:
        raise click.UsageError("give --after or --last, not both")
    if is_followed and isinstance(until, Instant):
        raise click.UsageError("with --follow, --until takes a sequence")
    end = find_end(log)
    until_max = SEQUENCE_MAX if is_followed else end
    begin = _find_bound(log, "--after", after, end)
    stop = _find_bound(log, "--until", until, until_max)
    if stop is None:
        stop = until_max
    if last is not None:
        # Behind a damaged last block nothing is known to be.
        begin = max(log.base.sequence, min(stop, log.tail.sequence) - last)
    elif begin is None:
        begin = log.base.sequence
    if stop < begin:
        raise click.UsageError(f"--until {stop} comes before --after {begin}")
    return Bounds(begin, stop)


def _find_bound(log: Log, name: str, moment: Moment | None, most: int) -> int | None:
    """Give the sequence that an option means; `most` is the highest that it may."""
    if isinstance(moment, Instant):
        return find_sequence(log, moment)
    if moment is not None and not log.base.sequence <= moment <= most:
        raise click.UsageError(
            f"{name} {moment} is not in the log, which goes from {log.base.sequence} "
            f"to {log.tail.sequence}"
        )
    return moment


def _pipeline_number(log: Log, name: str | None, format_: str) -> int | None:
    names = log.meta.pipelines
    known = ", ".join(names)
    if name is None:
        if format_ == WIRE and len(names) > 1:
            reason = "frames do not tell their pipeline: give one with --pipeline"
            raise click.UsageError(f"{reason} ({known})")
        return None
    if name not in names:
        raise click.UsageError(f"there is no pipeline {name!r} (known: {known})")
    return names.index(name)


def _form(place: Place, format_: str, *, is_raw: bool) -> Form:
    if format_ == WIRE:
        return Form(b"", _framing(None if is_raw else place.require_machine()))
    names = place.log.meta.pipelines
    pipelines = names if len(names) > 1 else ()
    if is_raw:
        text = EventText(format_, raw_fields(format_), pipelines)
        columns = _HEADER_OF_RAW
    else:
        machine = place.require_machine()
        text = EventText(format_, event_fields(machine, format_), pipelines)
        columns = event_columns(machine)
    return Form(text.header(columns).encode(), lambda part: text.write(part).encode())


def _framing(machine: Machine | None) -> Callable[[Part], bytes]:
    """Give what makes frames of records, with headers that the application reads."""
    if machine is None:
        return lambda part: frame_records(part.records, HEADER_BYTES)
    pipelines = machine.definition.pipelines

    def frame(part: Part) -> bytes:
        decoder = pipelines[part.pipeline].source.decoder
        header_bytes = decoder.header_length()
        try:
            check_headers(part.records, header_bytes, decoder.payload_length)
            return frame_records(part.records, header_bytes)
        except (FrameFormError, OverflowError) as error:
            raise CannotServeError(
                f"event {part.first_sequence} and those after it cannot be written as "
                f"frames of this application: {error}"
            ) from error

    return frame


@contextlib.contextmanager
def _output() -> Iterator[Callable[[bytes], None]]:
    """Open standard output for bytes, without a buffer that could be left behind."""
    with open(sys.stdout.fileno(), "wb", buffering=0, closefd=False) as stream:

        def put(data: bytes) -> None:
            view = memoryview(data)
            while view:
                view = view[stream.write(view) :]

        yield put


def _file_progress(
    bounds: Bounds, *, is_followed: bool
) -> AbstractContextManager[Callable[[int], None]]:
    """Show how far it is where a file is written; a bar would disturb all else."""
    is_file = stat.S_ISREG(os.fstat(sys.stdout.fileno()).st_mode)
    if is_followed or not is_file:
        return contextlib.nullcontext(lambda _reached: None)
    return progress(bounds.until, "events", start=bounds.after)
