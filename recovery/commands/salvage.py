"""`alphabet-replay salvage`: a new log from whatever is left of a damaged one."""

import contextlib
import fcntl
import json
from collections.abc import Iterator
from pathlib import Path

import attrs
import click

from alphabet.command_line import (
    CannotServeError,
    DamageError,
    option,
    sigterm_as_sigint,
)
from log.block import SEQUENCE_MAX
from log.directory import LOCK, DataDirectory
from log.errors import CommitError, DirectoryError, DiskFullError, LockedError
from log.lmdb_file import NewerEngineError
from log.lmdb_store import DATA_FILE
from log.row import OPAQUE
from recovery.commands.place import (
    data_dir_argument,
    format_options,
    hint,
    is_offline,
    to_argument,
)
from recovery.commands.progress import progress
from recovery.counted import counted
from recovery.damage.raw_file import RawFile
from recovery.damage.salvage import (
    Describe,
    Description,
    NewerLogError,
    Salvaged,
    SalvageError,
)
from recovery.damage.salvage import salvage as write_salvaged
from recovery.damage.salvage_plan import Gap, Ignored
from recovery.new_place import new_place
from recovery.snapshot import Snapshot
from recovery.snapshot_directory import SnapshotDirectory

ALPHABET = Description("alphabet", ">sI", ("alphabet",))
"""What Alphabet's own logs are: no application's code is needed to know it."""


@click.command()
@data_dir_argument
@to_argument
@option(
    "--application",
    metavar="NAME",
    help="Whose log it is, if neither it nor a snapshot tells.",
)
@option(
    "--pipeline",
    "pipelines",
    multiple=True,
    metavar="NAME",
    help="Each pipeline in order, if the log does not tell.  [Alphabet's are known]",
)
@option(
    "--record-schema",
    metavar="SCHEMA",
    help="What its records are, if the log does not tell.  [Alphabet's are known]",
)
@format_options("table", "json")
def salvage(
    *,
    data_dir: Path,
    to: Path,
    application: str | None,
    pipelines: tuple[str, ...],
    record_schema: str | None,
    format_: str,
) -> None:
    """Write every block of a damaged log that is whole to a new log in TO.

    Blocks are looked for in the raw bytes, whatever became of the rest. What is
    missing becomes gaps, and the exit code is then 1; the new log is there all the
    same. For a stopped server's directory; it is only read.
    """

    def describe(named: str | None) -> Description:
        return _describe(named or application, pipelines, record_schema)

    with held(data_dir), sigterm_as_sigint():
        result, ignored, unreadable_bytes = _write(data_dir, to, describe)
    if format_ == "json":
        fields = attrs.asdict(result)
        fields["ignored"] = [attrs.asdict(each) for each in (*ignored, *result.ignored)]
        fields |= {"is_loss": result.is_loss, "unreadable_bytes": unreadable_bytes}
        click.echo(json.dumps(fields))
    else:
        for line in report_lines(result, ignored, unreadable_bytes, to):
            click.echo(line)
    if result.is_loss:
        raise DamageError(f"{data_dir}: {loss_line(result)}; {to} has all the rest")


@contextlib.contextmanager
def held(data_dir: Path) -> Iterator[None]:
    """Keep servers away from a data directory; refuse where one is running.

    A server holds two files, for the first of them may have been removed.
    """
    lock = data_dir / LOCK
    with contextlib.ExitStack() as locks:
        # That the log cannot be read is told by who reads it.
        for file, is_needed in ((lock, not is_offline()), (_log_file(data_dir), False)):
            try:
                _hold(data_dir, file, locks)
            except (FileNotFoundError, NotADirectoryError):
                # A copy of a log has none, and what is no directory is told soon.
                continue
            except OSError as error:
                if is_needed:
                    raise CannotServeError(
                        f"{file}: {error.strerror}; if no server is running on it, say "
                        "so with --offline"
                    ) from error
        yield


def _hold(data_dir: Path, file: Path, locks: contextlib.ExitStack) -> None:
    """Share the lock on a file until the end; raises OSError, or refuses a server."""
    stream = locks.enter_context(file.open("rb", buffering=0))
    try:
        fcntl.flock(stream, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = stream.read(32).strip()
        refusal = LockedError(data_dir, int(holder) if holder.isdigit() else None)
        raise CannotServeError(f"{refusal} (salvage is for a stopped one)") from error


def _log_file(data_dir: Path) -> Path:
    return DataDirectory(data_dir).log_path / DATA_FILE


def _describe(
    application: str | None, pipelines: tuple[str, ...], record_schema: str | None
) -> Description:
    """Describe a log by what is known of it; raises SalvageError."""
    if application is None:
        raise SalvageError(
            "it does not say any more whose log it is, and no snapshot does: name the "
            f"application, as with --application {ALPHABET.application}"
        )
    if not pipelines and application == ALPHABET.application:
        pipelines = ALPHABET.pipelines
        record_schema = record_schema or ALPHABET.record_schema
    if not pipelines:
        raise SalvageError(
            f"it does not say any more what pipelines {application!r} has: name them "
            "in order with --pipeline, and what its records are with --record-schema"
        )
    return Description(application, record_schema or OPAQUE, pipelines)


def _write(
    data_dir: Path, to: Path, describe: Describe
) -> tuple[Salvaged, list[Ignored], int]:
    """Write the new log; give what became of it, and the snapshots that are broken."""
    directory = DataDirectory(data_dir)
    file = _log_file(data_dir)
    try:
        if not directory.has_log():
            found = f"there is no log in it{hint(data_dir)}"
            raise CannotServeError(f"DATA_DIR {data_dir}: {found}")
        with contextlib.closing(RawFile.open(file)) as source:
            snapshots, broken = _read_snapshots(directory)
            with (
                new_place(to, data_dir) as target,
                progress(source.size, "scan", unit="bytes") as show,
            ):
                result = write_salvaged(source, snapshots, target, describe, show)
            return result, broken, source.unreadable_bytes
    except NewerLogError as error:
        raise CannotServeError(f"{file}: {error}") from error
    except SalvageError as error:
        raise DamageError(f"{file}: {error}") from error
    except NewerEngineError as error:
        raise CannotServeError(
            f"{file}: {error}; use the Alphabet that wrote it"
        ) from error
    except DiskFullError as error:
        reason = "its disk is full; make room, or choose another disk"
        raise CannotServeError(f"{to}: {reason}; nothing was left there") from error
    except CommitError as error:
        raise CannotServeError(f"{error.reason}; nothing was left in {to}") from error
    except (DirectoryError, LockedError) as error:
        raise CannotServeError(str(error)) from error
    except OSError as error:
        place = error.filename or file
        raise CannotServeError(f"{place}: {error.strerror}") from error


def _read_snapshots(
    directory: DataDirectory,
) -> tuple[list[Snapshot], list[Ignored]]:
    """Give the snapshots that are whole, and those that are not."""
    whole = []
    broken = []
    for sequence, found in SnapshotDirectory(directory.snapshots_path).newest(
        SEQUENCE_MAX
    ):
        if isinstance(found, Snapshot):
            whole.append(found)
        else:
            broken.append(Ignored(f"snapshot {sequence}", str(found)))
    return whole, broken


def loss_line(result: Salvaged) -> str:
    """Say in a few words what is lost."""
    lost = sum(gap.last + 1 - gap.first for gap in result.gaps)
    parts = []
    if lost:
        kept = sum(g.last + 1 - g.first for g in result.gaps if g.is_counted)
        still = counted(kept, "is", "are")
        share = f", of which {still} counted in the totals" if kept else ""
        parts.append(f"{counted(lost, 'event is', 'events are')} lost{share}")
    if result.is_base_lost:
        parts.append("the state at its base is lost")
    if result.moves:
        names = ", ".join(move.sink for move in result.moves)
        parts.append(f"moved on: {names}")
    if result.streams_back:
        parts.append(f"streams that go back: {len(result.streams_back)}")
    return "; ".join(parts)


def report_lines(
    result: Salvaged, ignored: list[Ignored], unreadable_bytes: int, to: Path
) -> Iterator[str]:
    """Write what became of the log as lines, what matters most first."""
    yield (
        f"log {result.log_id} in {to}: {counted(result.events, 'event', 'events')} in "
        f"{counted(result.blocks, 'block', 'blocks')}, "
        f"begins after {result.base_sequence}, ends at {result.last_sequence}"
    )
    yield f"made from: log {result.parent_id or 'unknown'}"
    yield from map(_gap_line, result.gaps)
    if result.is_base_lost:
        yield "lost: the state at the log's base, and all before it from the totals"
    for move in result.moves:
        yield f"moved: sink {move.sink} from {move.before} to {move.after}"
    for stream_id in result.streams_back:
        yield f"moved: stream {stream_id} goes back to what is left of it"
    yield f"snapshots: {', '.join(map(str, result.snapshots)) or 'none'}"
    yield f"sinks: {', '.join(result.sinks) or 'none'}"
    yield f"streams: {result.streams}"
    yield f"rejects: {result.rejects}"
    counts = {
        "sealed anew, behind a gap": result.sealed_anew,
        "of these not proven to be of the branch before the gap": result.unproven,
        "blocks found more than once": result.copies,
        "places where a block seems to begin and is not whole": result.torn,
        "bytes that cannot be read": unreadable_bytes,
    }
    for what, count in counts.items():
        if count:
            yield f"{what}: {count}"
    if result.doubtful:
        yield f"searched for in the raw bytes: {', '.join(result.doubtful)}"
    for each in (*ignored, *result.ignored):
        yield f"ignored: {each.what}: {each.reason}"
    if result.ignored_more:
        yield f"ignored: {result.ignored_more} more blocks"


def _gap_line(gap: Gap) -> str:
    size = "" if gap.block_bytes is None else f" ({gap.block_bytes} bytes)"
    fate = "still counted in the totals" if gap.is_counted else "not in the totals"
    return f"lost: events {gap.first} to {gap.last}{size}, {fate}"
