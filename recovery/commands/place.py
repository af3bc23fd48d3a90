"""A data directory opened by a command: read-only, its failures told in one line."""

import contextlib
import itertools
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import attrs
import click
from click.shell_completion import CompletionItem

from alphabet.command_line import CannotServeError, DamageError, option
from alphabet.loading import ApplicationError, load_machine, offline_arguments
from alphabet.pipeline.machine import Machine
from log.directory import LOG, DataDirectory
from log.errors import DamagedError, DirectoryError, ForeignError, LockedError
from log.lmdb_store import DATA_FILE
from log.log import Log
from log.tree_store import TreeStore
from recovery.errors import RecoveryError
from recovery.replay import Replayer
from recovery.snapshot_directory import SnapshotDirectory

DATA_DIR_DEFAULT = Path("alphabet-data")
"""Where `alphabet run` keeps its log if it is not told."""

_OFFLINE = f"{__name__}.offline"
"""Where a command's context keeps what `--offline` says."""
_ENTRIES_MAX = 1000
"""How many entries of a directory are looked at to find a log near by."""


def _complete_directory(
    _ctx: click.Context, _parameter: click.Parameter, incomplete: str
) -> list[CompletionItem]:
    """Let the shell complete a directory's name."""
    return [CompletionItem(incomplete, type="dir")]


def _note_offline(ctx: click.Context, _param: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's callback
    ctx.meta[_OFFLINE] = value


def data_dir_argument(function: Callable[..., None]) -> Callable[..., None]:
    """Add DATA_DIR and, last of the options, `--offline`, which `opened` obeys."""
    offline = option(
        "--offline",
        is_flag=True,
        expose_value=False,
        callback=_note_offline,
        help="Read although no lock may be taken: no server is running on DATA_DIR.",
    )
    made: Any = _directory_argument("data_dir")(offline(function))
    # Click has the last option first.
    parameters = made.__click_params__
    parameters.insert(0, parameters.pop(-2))
    return made  # type: ignore[no-any-return]


def _directory_argument(
    name: str,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    # Whether it may be read is told where it is opened, with what to do.
    kind = click.Path(path_type=Path, readable=False)
    return click.argument(name, type=kind, shell_complete=_complete_directory)


to_argument = _directory_argument("to")


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
    is_file_damaged: bool = False,
) -> Iterator[Place]:
    """Open a data directory read-only; failures become the command's one line.

    LMDB is kept away from a file whose structure is damaged.
    """
    try:
        directory = DataDirectory(data_dir)
        if is_file_damaged:
            log = _open_reachable(directory)
        else:
            log = _open_log(directory, is_damage_accepted=is_damage_accepted)
        with contextlib.closing(log):
            machine = None
            if needs_machine:
                machine = load_machine(
                    application_module, offline_arguments(len(log.meta.pipelines))
                )
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


def _open_log(directory: DataDirectory, *, is_damage_accepted: bool) -> Log:
    """Open the log to read it; what keeps us from it is told with what may help."""
    try:
        return directory.open_log(
            is_read_only=True,
            is_offline=is_offline(),
            is_damage_accepted=is_damage_accepted,
        )
    except DirectoryError as error:
        message = f"DATA_DIR {error}{hint(directory.path)}"
        raise CannotServeError(message) from error


def _open_reachable(directory: DataDirectory) -> Log:
    """Open what can be reached of a damaged file; the store ends if that fails."""
    store = TreeStore.open(directory.log_path)
    try:
        return Log.open(store, is_damage_accepted=True)
    except BaseException:
        store.close()
        raise


def is_offline() -> bool:
    """Say whether the command that is running was given `--offline`."""
    context = click.get_current_context(silent=True)
    return context is not None and context.meta.get(_OFFLINE, False)


def hint(data_dir: Path) -> str:
    """Ask for the directory that may have been meant, if this one holds no log."""
    is_there = os.path.isdir(data_dir)  # noqa: PTH112 - False, whatever fails
    is_closed = is_there and not os.access(data_dir, os.R_OK | os.X_OK)
    if is_closed or _holds_log(data_dir):
        return ""
    near = itertools.chain(data_dir.parents[:2], _inside(data_dir), [DATA_DIR_DEFAULT])
    found = next(filter(_holds_log, near), None)
    return "" if found is None else f"; did you mean {found}?"


def _inside(path: Path) -> list[Path]:
    """Give a directory's entries, the first of many; of anything else, none."""
    try:
        with os.scandir(path) as entries:
            names = [each.name for each in itertools.islice(entries, _ENTRIES_MAX)]
    except OSError:
        return []
    return [path / name for name in sorted(names)]


def _holds_log(path: Path) -> bool:
    return os.path.exists(path / LOG / DATA_FILE)  # noqa: PTH110 - False, whatever fails


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
