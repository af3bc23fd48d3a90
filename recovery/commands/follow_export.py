"""`alphabet-replay export --follow`: votes as segments, for as long as the log grows.

Between two looks nothing of the log is open, so a server may end, be away and start
again.
"""

import contextlib
import json
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import click

from alphabet.command_line import CannotServeError, DamageError
from log.log import Log
from recovery.commands.endless import ended_by_signal, is_read_for
from recovery.commands.place import opened
from recovery.exporting.continuous_export import ContinuousExport
from recovery.exporting.export import ExportDirectory, ExportError, Written
from recovery.exporting.tally import Tally
from recovery.new_place import check_apart
from recovery.replay import Replayer

EVERY_SECONDS = 60.0
"""How often a segment is written by default, if there are votes."""

_SERVER = re.compile(r"[A-Za-z0-9._-]{1,64}")


@attrs.frozen
class FollowWish:
    """What the operator asked for, as `ContinuousExport` has it.

    `find_after` settles behind which event a new export begins.
    """

    server: str | None
    file_events: int
    every_seconds: float
    find_after: Callable[[Log], int | None]
    are_gaps_accepted: bool
    format_: str


def check_server(
    _context: click.Context, _parameter: click.Parameter, name: str | None
) -> str | None:
    """Refuse what is no server's name, as click's callback."""
    if name is not None and not _SERVER.fullmatch(name):
        raise click.BadParameter("it must be 1 to 64 of A-Z, a-z, 0-9, '.', '_', '-'")
    return name


def follow_export(data_dir: Path, to: Path, wish: FollowWish) -> None:
    """Write segments until a signal ends it, or nobody reads what is printed."""
    consent = wish.are_gaps_accepted
    try:
        with ended_by_signal(), contextlib.ExitStack() as held:
            with opened(data_dir, are_gaps_accepted=consent) as place:
                check_apart(to, data_dir)
                after = wish.find_after(place.log)
                export = ContinuousExport(
                    held.enter_context(ExportDirectory.claim(to)),
                    Tally(place.require_machine()),
                    wish.server,
                    wish.file_events,
                    after,
                )
                tell_removed(export.begin(place.log))
                _catch_up(export, place.replayer, wish.format_)
            while is_read_for(wish.every_seconds):
                with (
                    _told_if_moved(data_dir, to),
                    opened(
                        data_dir, needs_machine=False, are_gaps_accepted=consent
                    ) as place,
                ):
                    _catch_up(export, place.replayer, wish.format_)
    except ExportError as error:
        raise DamageError(str(error)) from error


def tell_removed(names: list[str]) -> None:
    """Say which files of an earlier run were removed."""
    for name in names:
        click.echo(f"removed {name}, which an earlier export left unfinished", err=True)


def tell_gaps(written: Written) -> None:
    """Say which events of a segment are lost."""
    for first, count in written.label.gaps:
        last = first + count - 1
        click.echo(f"events {first} to {last} are lost: they have no rows", err=True)


@contextlib.contextmanager
def _told_if_moved(data_dir: Path, to: Path) -> Iterator[None]:
    """Say of a log that was there, and is not now, how the export goes on."""
    try:
        yield
    except CannotServeError as error:
        if data_dir.exists():
            raise
        raise CannotServeError(
            f"DATA_DIR {data_dir} was moved or removed: bring it back, or start again "
            f"with its new place; {to} goes on where it is"
        ) from error


def _catch_up(export: ContinuousExport, replayer: Replayer, format_: str) -> None:
    for written in export.catch_up(replayer):
        tell_gaps(written)
        segment = written.segment
        if format_ == "json":
            found = {
                "file": segment.file,
                "first_sequence": segment.first_sequence,
                "last_sequence": segment.last_sequence,
                "events": written.events,
                "bytes": written.file_bytes,
                "gaps": written.label.gaps,
            }
            click.echo(json.dumps(found))
        else:
            click.echo(
                f"{segment.file}: {written.events} events, {written.file_bytes} bytes"
            )
