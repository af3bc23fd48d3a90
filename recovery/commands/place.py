"""A data directory opened by a command: read-only, its failures told in one line."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path

import attrs
import click

from alphabet.command_line import CannotServeError, DamageError, option
from alphabet.loading import ApplicationError, load_machine
from alphabet.machine import Machine
from log.directory import DataDirectory
from log.errors import DamagedError, DirectoryError, ForeignError, LockedError
from log.log import Log
from recovery.errors import RecoveryError
from recovery.replay import Replayer
from recovery.snapshot_directory import SnapshotDirectory

data_dir_argument = click.argument("data_dir", type=click.Path(path_type=Path))
to_argument = click.argument("to", type=click.Path(path_type=Path))


@attrs.frozen
class Place:
    """A data directory opened for looking at it."""

    log: Log
    snapshots: SnapshotDirectory
    replayer: Replayer
    machine: Machine | None

    def require_machine(self) -> Machine:
        """Give the application's machine, which this command needs."""
        assert self.machine is not None  # noqa: S101 - the commands' own affair
        return self.machine


@contextlib.contextmanager
def opened(
    data_dir: Path,
    application_module: str | None = None,
    *,
    needs_machine: bool = True,
    are_gaps_accepted: bool = False,
    is_damage_accepted: bool = False,
) -> Iterator[Place]:
    """Open a data directory read-only; failures become the command's one line."""
    try:
        directory = DataDirectory(data_dir)
        log = directory.open_log(
            is_read_only=True, is_damage_accepted=is_damage_accepted
        )
        with contextlib.closing(log):
            machine = None
            if needs_machine:
                machine = load_machine(application_module, [])
                log.require(
                    machine.application, machine.record_schema, machine.pipeline_names
                )
            snapshots = SnapshotDirectory(directory.snapshots_path)
            replayer = Replayer(
                log,
                snapshots,
                is_lost_tail_accepted=True,
                are_gaps_accepted=are_gaps_accepted,
            )
            yield Place(log, snapshots, replayer, machine)
    except (DamagedError, RecoveryError) as error:
        raise DamageError(str(error)) from error
    except (DirectoryError, ForeignError, LockedError, ApplicationError) as error:
        raise CannotServeError(str(error)) from error


def format_options(
    *formats: str,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Add `--format` with the formats given, and `--json` for short."""

    def add(function: Callable[..., None]) -> Callable[..., None]:
        choice = click.Choice(list(formats))
        settings = {"type": choice, "default": formats[0], "show_default": True}
        function = option("--format", "format_", help="How to print.", **settings)(
            function
        )
        short = option(
            "--json", "format_", flag_value="json", help="Short for --format json."
        )
        return short(function)

    return add


def machine_option(function: Callable[..., None]) -> Callable[..., None]:
    """Add `--application-module`."""
    return option(
        "--application-module",
        metavar="NAME",
        help="The application that wrote the log.  [default: Alphabet's own]",
    )(function)
