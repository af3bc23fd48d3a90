"""`alphabet-replay verify`: whether a log and its snapshots are sound."""

import json
import mmap
from pathlib import Path

import attrs
import click

from alphabet.command_line import DamageError, option
from log.directory import DataDirectory
from log.errors import DamagedError, LogError
from log.lmdb_check import Structure
from log.lmdb_store import DATA_FILE
from recovery.commands.place import (
    data_dir_argument,
    format_options,
    is_offline,
    machine_option,
    opened,
)
from recovery.commands.progress import progress
from recovery.counted import counted
from recovery.description import finding_line
from recovery.verify import (
    DAMAGE,
    Finding,
    Verification,
    Verifier,
    structure_findings,
)


@click.command()
@data_dir_argument
@option("--bytes-only", is_flag=True, help="Replay nothing: needs no application.")
@machine_option
@format_options("table", "json")
def verify(
    *,
    data_dir: Path,
    bytes_only: bool,
    application_module: str | None,
    format_: str,
) -> None:
    """Check every checksum, link and sequence, and each snapshot against a replay.

    Exit code 1 and the first damaged place if the log is not sound.
    """
    structure = _inspect_file(DataDirectory(data_dir))
    try:
        with (
            opened(
                data_dir,
                application_module,
                needs_machine=not bytes_only,
                is_damage_accepted=True,
                is_file_damaged=bool(structure.flaws),
            ) as place,
            progress(place.log.tail.sequence, start=place.log.base.sequence) as show,
        ):
            result = Verifier(
                place.log, place.snapshots, place.machine, show, structure
            ).run()
    except DamageError as error:
        found = [*structure_findings(structure), _finding(error)]
        result = Verification(findings=found)
    if format_ == "json":
        click.echo(verification_json(result))
    else:
        for finding in result.findings:
            click.echo(finding_line(finding))
        if not result.damage:
            click.echo(
                f"sound: {counted(result.events, 'event', 'events')} in "
                f"{counted(result.blocks, 'block', 'blocks')}, "
                f"{counted(result.snapshots, 'snapshot', 'snapshots')}"
            )
    if result.damage:
        count = len(result.damage)
        first = finding_line(result.damage[0])
        more = f" ({count - 1} more)" if count > 1 else ""
        raise DamageError(f"{data_dir}: {first}{more}")


def _inspect_file(directory: DataDirectory) -> Structure:
    """Look at the file under the log, before LMDB reads it.

    What keeps us from it, or is wrong with all of it, is told where it is opened.
    """
    try:
        data = directory.log_path / DATA_FILE
        pages = data.stat().st_size // mmap.PAGESIZE
        with progress(pages, "pages", unit="pages") as show:
            return directory.inspect_file(is_offline=is_offline(), progress=show)
    except (LogError, OSError):
        return Structure()


def _finding(error: DamageError) -> Finding:
    """Make a finding of what kept a log from being looked at."""
    cause = error.__cause__
    if isinstance(cause, DamagedError):
        return Finding(DAMAGE, "log", cause.reason, cause.sequence)
    return Finding(DAMAGE, "log", error.format_message())


def verification_json(result: Verification) -> str:
    """Write all that verify found as JSON, on one line."""
    return json.dumps({"ok": not result.damage, **attrs.asdict(result)})
