"""`alphabet-replay snapshots`: which ones there are, and whether they are sound."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from alphabet.command_line import DamageError, option
from recovery.commands.place import (
    data_dir_argument,
    format_options,
    machine_option,
    opened,
)
from recovery.commands.progress import progress
from recovery.commands.rows import Row, print_rows, printable
from recovery.moment import format_instant
from recovery.snapshot_list import FAULTS, Listed, SnapshotList


@click.command()
@data_dir_argument
@option("--no-check", is_flag=True, help="Replay nothing: needs no application.")
@machine_option
@format_options("table", "json", "csv")
def snapshots(
    *,
    data_dir: Path,
    no_check: bool,
    application_module: str | None,
    format_: str,
) -> None:
    """List the snapshots, and check each against a replay.

    Those that a server has set aside are listed too. Exit code 1 if one in use is
    damaged, ahead of the log, or not the state that a replay gives.
    """
    with (
        opened(
            data_dir,
            application_module,
            needs_machine=not no_check,
            is_damage_accepted=True,
        ) as place,
        progress(place.log.tail.sequence) as show,
    ):
        listing = SnapshotList(place.replayer, place.machine, show)
        found = listing.run()
    print_rows([_row(listed) for listed in found], format_, _for_people)
    if not found:
        click.echo("there are no snapshots", err=True)
    wrong = [listed for listed in found if listed.standing in FAULTS]
    if wrong:
        first = wrong[0]
        more = f" ({len(wrong) - 1} more)" if len(wrong) > 1 else ""
        raise DamageError(f"{first.file}: {first.standing}: {first.reason}{more}")
    if listing.log_damage is not None:
        raise DamageError(str(listing.log_damage))


def _row(listed: Listed) -> Row:
    return {
        "sequence": listed.sequence,
        "time": None if listed.time_ns is None else format_instant(listed.time_ns),
        "bytes": listed.file_bytes,
        "state_version": listed.state_version,
        "standing": listed.standing,
        "reason": listed.reason or None,
        "file": str(listed.file),
    }


def _for_people(row: Mapping[str, Any]) -> Mapping[str, str]:
    reason = f": {row['reason']}" if row["reason"] else ""
    return {
        "SEQUENCE": str(row["sequence"]),
        "TIME": row["time"] or "-",
        "BYTES": str(row["bytes"]),
        "VERSION": "-" if row["state_version"] is None else str(row["state_version"]),
        "FILE": printable(Path(row["file"]).name),
        "STANDING": printable(row["standing"] + reason),
    }
