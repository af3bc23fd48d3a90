"""`alphabet-replay backup`: a copy of a log, to go on with after a disaster."""

import time
from pathlib import Path

import click

from alphabet.command_line import CannotServeError, sigterm_as_sigint
from log.errors import CommitError, DiskFullError
from recovery.backup import BackedUp, back_up
from recovery.commands.place import data_dir_argument, opened, to_argument
from recovery.commands.progress import progress


@click.command()
@data_dir_argument
@to_argument
def backup(*, data_dir: Path, to: Path) -> None:
    """Copy the log to TO, as it is now: events, snapshots, sinks, streams, rejects.

    The copy is flushed and read back. Where TO has an earlier copy of the same log,
    only what came since is added. A server may be running on DATA_DIR, not on TO.
    """
    started = time.perf_counter()
    try:
        with opened(data_dir, needs_machine=False) as place, sigterm_as_sigint():
            result = back_up(
                place.log,
                place.snapshots,
                data_dir,
                to,
                lambda start, end: progress(end, "backup", start=start),
            )
    except DiskFullError as error:
        raise CannotServeError(
            f"{to}: its disk is full; make room, or choose another disk"
        ) from error
    except CommitError as error:
        raise CannotServeError(f"{to}: {error.reason}; check its disk") from error
    _tell(result, to, time.perf_counter() - started)


def _tell(result: BackedUp, to: Path, seconds: float) -> None:
    for sequence, reason in result.left_out:
        click.echo(f"snapshot {sequence} is not copied: {reason}", err=True)
    events = result.last_sequence - result.start
    click.echo(
        f"copied {events} events in {seconds:.3f} s ({events / seconds:,.0f}/s): "
        f"{result.block_bytes / 1e6:.1f} MB",
        err=True,
    )
    snapshots = ", ".join(map(str, result.snapshots)) or "none"
    click.echo(
        f"log {result.log_id} in {to}: ends at {result.last_sequence}, snapshots: "
        f"{snapshots}"
    )
