"""`alphabet-replay export`: the log as Parquet files."""

import functools
import importlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import attrs
import click

from alphabet.command_line import (
    CannotServeError,
    DamageError,
    option,
    sigterm_as_sigint,
)
from log.log import Log
from recovery.commands.endless import (
    INTERVAL_SECONDS_MAX,
    INTERVAL_SECONDS_MIN,
)
from recovery.commands.follow_export import (
    EVERY_SECONDS,
    FollowWish,
    check_server,
    follow_export,
    tell_gaps,
    tell_removed,
)
from recovery.commands.moment_type import MomentType
from recovery.commands.place import (
    data_dir_argument,
    format_options,
    opened,
    to_argument,
)
from recovery.commands.progress import progress
from recovery.description import field_lines
from recovery.exporting.event_columns import Form
from recovery.exporting.export import (
    ExportDirectory,
    Exporter,
    ExportError,
    Written,
    block_holding,
)
from recovery.exporting.segment import Plan
from recovery.moment import Moment, MomentError, find_end_damage, find_sequence
from recovery.new_place import check_apart

FILE_EVENTS = 50_000_000
"""How many events a file has by default: some 100 MB of votes."""

SIZE, DAY = "size", "day"


@attrs.frozen
class Wish:
    """What the operator asked for; None is for what was left to us.

    The events after `after` (exclusive) to `until` (inclusive).
    """

    is_by_day: bool | None
    file_events: int
    after: int | None
    until: int


@click.command()
@data_dir_argument
@to_argument
@option(
    "--partition",
    type=click.Choice([SIZE, DAY]),
    help="Files by size, or by day too, in directories day=2026-11-26.  "
    "[default: what TO has, else size]",
)
@option(
    "--file-events",
    type=click.IntRange(min=1),
    metavar="EVENTS",
    default=FILE_EVENTS,
    show_default=True,
    help="Begin a new file after so many events, where a block ends.",
)
@option(
    "--after",
    type=MomentType(),
    metavar="SEQ|TIME",
    help="Begin a new export behind this event or time, exclusive.  "
    "[default: the log's base]",
)
@option(
    "--until",
    type=MomentType(),
    metavar="SEQ|TIME",
    help="End with this event or time, inclusive.  [default: the log's end]",
)
@option(
    "--follow",
    is_flag=True,
    help="Go on, and write what comes, as segments for many servers' totals: with "
    "the server's name, and what was counted of each vote.",
)
@option(
    "--every-seconds",
    type=click.FloatRange(INTERVAL_SECONDS_MIN, INTERVAL_SECONDS_MAX),
    metavar="SECONDS",
    default=EVERY_SECONDS,
    show_default=True,
    help="With --follow: how often a segment is written, if there are votes.",
)
@option(
    "--server",
    metavar="NAME",
    callback=check_server,
    help="With --follow: whose votes they are, the same for good.  "
    "[default: what TO has, else the log's id]",
)
@option(
    "--accept-gaps",
    is_flag=True,
    help="With --follow: pass over events that are lost.",
)
@format_options("table", "json")
def export(
    *,
    data_dir: Path,
    to: Path,
    partition: str | None,
    file_events: int,
    after: Moment | None,
    until: Moment | None,
    follow: bool,
    every_seconds: float,
    server: str | None,
    accept_gaps: bool,
    format_: str,
) -> None:
    """Write the log to TO as Parquet files, for DuckDB, Polars and Spark.

    Run again, it goes on behind the last event that TO has. With --follow it goes on
    until Ctrl-C, also while the server is away.
    """
    _require_pyarrow()
    if follow and (until is not None or partition == DAY):
        raise click.UsageError("--follow takes no --until, and no --partition day")
    if not follow and (server is not None or accept_gaps):
        raise click.UsageError("--server and --accept-gaps go with --follow")
    if follow:
        to_go_on = FollowWish(
            server,
            file_events,
            every_seconds,
            lambda log: None if after is None else _find_bound(log, "--after", after),
            accept_gaps,
            format_,
        )
        follow_export(data_dir, to, to_go_on)
        return
    with (
        # What comes before damage is exported.
        opened(data_dir, needs_machine=False, is_damage_accepted=True) as place,
        sigterm_as_sigint(),
    ):
        log = place.log
        wish = Wish(
            None if partition is None else partition == DAY,
            file_events,
            *_find_bounds(log, after, until),
        )
        check_apart(to, data_dir)
        try:
            with ExportDirectory.claim(to) as directory:
                _export(log, directory, wish, format_)
        except ExportError as error:
            raise DamageError(str(error)) from error
        if until is None and (damage := find_end_damage(log)):
            raise damage


def _require_pyarrow() -> None:
    """Raise CannotServeError unless Parquet can be written."""
    try:
        importlib.import_module("pyarrow")
    except ImportError as error:
        raise CannotServeError(
            "export needs pyarrow: pip install '.[parquet]' in the checkout"
        ) from error


def _find_bounds(
    log: Log, after: Moment | None, until: Moment | None
) -> tuple[int | None, int]:
    """Settle which events are asked for; raises UsageError for those of no log."""
    begin = None if after is None else _find_bound(log, "--after", after)
    end = log.tail.sequence if until is None else _find_bound(log, "--until", until)
    if end < (begin or 0):
        raise click.UsageError(f"--until {end} comes before --after {begin}")
    return begin, end


def _find_bound(log: Log, name: str, moment: Moment) -> int:
    try:
        return find_sequence(log, moment)
    except MomentError as error:
        raise click.UsageError(f"{name} {error}") from error


def _export(log: Log, directory: ExportDirectory, wish: Wish, format_: str) -> None:
    """Bring an export up to the end that was asked for; print what was written."""
    _check_begun(directory, wish)
    directory.check(log, Form(log.meta))
    tell_removed(directory.prepare())
    plan = Plan(
        log.meta.log_id,
        is_by_day=bool(wish.is_by_day or directory.is_by_day),
        events_max=wish.file_events,
        block_at=functools.partial(block_holding, log),
    )
    after = directory.last_sequence
    if after is None:
        after = log.base.sequence if wish.after is None else wish.after
    written: list[Written] = []
    try:
        with progress(max(after, wish.until), "export", start=after) as show:
            exporter = Exporter(log, directory, plan, show)
            for each in exporter.export(after, wish.until):
                written.append(each)
                tell_gaps(each)
    finally:
        _print(written, after, format_)


def _check_begun(directory: ExportDirectory, wish: Wish) -> None:
    """Raise UsageError if an export that is there was begun with other options."""
    if directory.oldest is None:
        return
    if wish.is_by_day not in {None, directory.is_by_day}:
        way = DAY if directory.is_by_day else SIZE
        raise click.UsageError(f"{directory.path} is partitioned by {way}: go on so")
    begin = directory.oldest.first_sequence - 1
    if wish.after not in {None, begin}:
        raise click.UsageError(
            f"{directory.path} begins behind {begin}, not {wish.after}, and goes on "
            f"behind {directory.last_sequence}: leave --after out"
        )


def _print(written: Sequence[Written], after: int, format_: str) -> None:
    """Print what was written."""
    found: dict[str, Any] = {
        "files": len(written),
        "events": sum(each.events for each in written),
        "bytes": sum(each.file_bytes for each in written),
        "after": after,
        "last_sequence": written[-1].segment.last_sequence if written else after,
    }
    if format_ == "json":
        gaps = [gap for each in written for gap in each.label.gaps]
        click.echo(json.dumps(found | {"gaps": gaps}))
        return
    for name, value in found.items():
        for line in field_lines(name, value):
            click.echo(line)
