"""`alphabet-replay plot`: the totals over time as a picture."""

import contextlib
import os
import re
import tempfile
from pathlib import Path

import click

from alphabet.application import AllVotes
from alphabet.command_line import CannotServeError, option
from alphabet.pipeline.machine import Machine
from alphabet.printing import format_letter
from log.directory import flush_directory
from log.errors import DirectoryError
from log.log import Log
from recovery.commands.moment_type import MomentType
from recovery.commands.place import Place, data_dir_argument, machine_option, opened
from recovery.commands.progress import progress
from recovery.moment import Moment, MomentError, find_sequence
from recovery.new_place import check_apart
from recovery.picture.chart import LINES_MAX, Totals, make_chart
from recovery.picture.history import History, read_history
from recovery.picture.plot import FORMATS, MissingLibraryError, check_library, draw
from recovery.picture.theme import THEMES

picture_argument = click.argument("to", type=click.Path(path_type=Path))

_LETTER = re.compile(r"\\x[0-9a-fA-F]{2}|.", re.DOTALL)


@click.command()
@data_dir_argument
@picture_argument
@option(
    "--after",
    type=MomentType(),
    metavar="SEQ|TIME",
    help="Begin behind this event or time, exclusive.  [default: the log's beginning]",
)
@option(
    "--until",
    type=MomentType(),
    metavar="SEQ|TIME",
    help="End with this event or time, inclusive.  [default: the log's end]",
)
@option(
    "--letters",
    metavar="LETTERS",
    help=f"Name these lines, {LINES_MAX} at most; a byte may be written \\xNN.  "
    "[default: the highest]",
)
@option(
    "--theme",
    type=click.Choice(list(THEMES)),
    default="light",
    show_default=True,
    help="The colours.",
)
@machine_option
def plot(
    *,
    data_dir: Path,
    to: Path,
    after: Moment | None,
    until: Moment | None,
    letters: str | None,
    theme: str,
    application_module: str | None,
) -> None:
    """Draw the totals and the rates over time to TO, a .png or .svg file."""
    format_ = _format_of(to)
    chosen = _parse_letters(letters or "")
    _require_library()
    with opened(data_dir, application_module, are_gaps_accepted=True) as place:
        check_apart(to, data_dir)
        _check_place(to)
        machine = place.require_machine()
        history = _read(place, machine, _find_events(place.log, after, until))
        chart = make_chart(history, machine.application, place.log.meta.log_id, chosen)
        _tell(history, machine.application)
        _write_whole(to, draw(chart, format_, THEMES[theme]))
    count = history.last - history.first + 1
    click.echo(f"{to}: {count:,} events, {history.first:,} to {history.last:,}")


def _require_library() -> None:
    try:
        check_library()
    except MissingLibraryError as error:
        raise CannotServeError(str(error)) from error


def _format_of(to: Path) -> str:
    """Tell the picture's format by its file's name."""
    suffix = to.suffix.lower().removeprefix(".")
    if suffix not in FORMATS:
        raise click.UsageError(f"{to} must end in .png or .svg")
    return suffix


def _parse_letters(text: str) -> list[str]:
    r"""Read letters, each `\xNN` or a character of Latin-1, as they are printed."""
    names: dict[str, None] = {}
    for part in _LETTER.findall(text):
        code = int(part.removeprefix("\\x"), 16) if len(part) > 1 else ord(part)
        if code > 0xFF:  # noqa: PLR2004 - a letter is a byte
            raise click.UsageError(f"{part!r} is no letter: write one byte, or \\xNN")
        names[format_letter(bytes([code]))] = None
    if len(names) > LINES_MAX:
        raise click.UsageError(f"--letters takes {LINES_MAX} at most, not {len(names)}")
    return list(names)


def _check_place(to: Path) -> None:
    """Raise DirectoryError for a place where no new picture can go."""
    if os.path.lexists(to):
        reason = "it is there already; remove it, or choose another name"
        raise DirectoryError(to, reason)
    if not to.parent.is_dir():
        reason = f"its directory {to.parent} does not exist; make it first"
        raise DirectoryError(to, reason)
    if not os.access(to.parent, os.W_OK):
        raise DirectoryError(to, f"no leave to write to its directory {to.parent}")


def _find_events(log: Log, after: Moment | None, until: Moment | None) -> range:
    """Settle what is drawn: which events, by their sequences."""
    base, tail = log.base.sequence, log.tail.sequence
    if tail == base:
        behind = f" after {base}" if base else ""
        raise CannotServeError(
            f"there is nothing to draw: the log has no events{behind}"
        )
    first = base if after is None else _find_bound(log, "--after", after)
    last = tail if until is None else _find_bound(log, "--until", until)
    if first >= last:
        raise click.UsageError(
            f"there is nothing to draw: no event comes after {first} and until {last}"
        )
    return range(first + 1, last + 1)


def _find_bound(log: Log, name: str, moment: Moment) -> int:
    try:
        return find_sequence(log, moment)
    except MomentError as error:
        raise click.UsageError(f"{name} {error}") from error


def _read(place: Place, machine: Machine, events: range) -> History[Totals | None]:
    with progress(events[-1]) as show:
        return read_history(
            place.replayer, machine, lambda: _totals(machine), events, show
        )


def _totals(machine: Machine) -> Totals | None:
    """Give the totals by letter as it is printed, or None for another application."""
    states = [machine.state(name) for name in machine.state_names]
    if len(states) != 1 or not isinstance(states[0], AllVotes):
        return None
    return {
        format_letter(vote.letter): vote.votes
        for vote in states[0].votes_by_letter.values()
    }


def _tell(history: History[Totals | None], application: str) -> None:
    """Say what the picture lacks; raises CannotServeError where nothing is left."""
    lost = sum(gap.lost for gap in history.gaps)
    if lost:
        click.echo(f"{lost:,} events are lost; the picture marks where", err=True)
    if history.samples[-1].seen is not None:
        return
    reason = f"application {application!r} has no totals by letter"
    if history.samples[0].time_ns == history.samples[-1].time_ns:
        raise CannotServeError(f"nothing to draw: {reason}, and no time passed")
    click.echo(f"{reason}: only the rate of its events is drawn", err=True)


def _write_whole(to: Path, data: bytes) -> None:
    """Write a new file, which gets its name when it is whole and flushed."""
    temporary: Path | None = None
    try:
        with tempfile.NamedTemporaryFile(
            dir=to.parent, prefix=f".{to.name}.", delete=False
        ) as stream:
            temporary = Path(stream.name)
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        _check_place(to)
        temporary.rename(to)
        flush_directory(to.parent)
    except OSError as error:
        raise DirectoryError(to, f"it cannot be written: {error.strerror}") from error
    finally:
        if temporary is not None:
            with contextlib.suppress(FileNotFoundError):
                temporary.unlink()
