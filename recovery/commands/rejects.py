"""`alphabet-replay rejects`: which votes did not count, from whom, and why."""

import collections
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from alphabet.command_line import option
from log.row import Reject
from recovery.commands.place import data_dir_argument, format_options, opened
from recovery.commands.rows import Row, print_rows, printable
from recovery.moment import format_instant

SHOWN_BYTES_MAX = 16
"""How much of a payload a table shows; JSON and CSV have all that was kept."""


@click.command()
@data_dir_argument
@option(
    "--last",
    type=click.IntRange(min=1),
    metavar="N",
    help="The newest N alone.  [default: all that were kept]",
)
@format_options("table", "json", "csv")
def rejects(*, data_dir: Path, last: int | None, format_: str) -> None:
    """Print the votes that did not count, from whom and why, oldest first.

    Some were refused before the log and have no sequence; others are events of the log
    that failed. The newest 10,000 are kept. Needs no application.
    """
    with opened(data_dir, needs_machine=False, is_damage_accepted=True) as place:
        kept = list(collections.deque(place.log.rejects(), maxlen=last))
    print_rows(_rows(kept), format_, _for_people)
    if not kept:
        click.echo("no vote was refused, and none failed", err=True)
    elif last is None and kept[0][0] > 1:
        click.echo(f"the oldest {kept[0][0] - 1} are no longer kept", err=True)


def _rows(kept: list[tuple[int, Reject]]) -> Iterator[Row]:
    for number, reject in kept:
        yield {
            "number": number,
            "time": format_instant(reject.time_ns),
            "peer": reject.peer or None,
            "position": reject.position,
            "sequence": reject.sequence or None,
            "reason": reject.reason,
            "cause": reject.cause,
            "payload_bytes": reject.payload_bytes,
            "payload": reject.payload.hex(),
        }


def _for_people(row: Mapping[str, Any]) -> Mapping[str, str]:
    place = "" if row["position"] is None else f" at byte {row['position']}"
    event = f"event {row['sequence']}" if row["sequence"] else ""
    return {
        "NUMBER": str(row["number"]),
        "TIME": row["time"],
        "FROM": printable(row["peer"] or "") + place or event,
        "REASON": printable(row["reason"]),
        "BYTES": str(row["payload_bytes"]),
        "PAYLOAD": escaped(bytes.fromhex(row["payload"])),
        "CAUSE": printable(row["cause"]),
    }


def escaped(payload: bytes) -> str:
    r"""Write the first bytes of a payload as ASCII, others than printed as `\xNN`."""
    as_they_are = set(range(0x20, 0x7F)) - set(b'"\\')
    shown = "".join(
        chr(code) if code in as_they_are else f"\\x{code:02x}"
        for code in payload[:SHOWN_BYTES_MAX]
    )
    more = "…" if len(payload) > SHOWN_BYTES_MAX else ""
    return f'"{shown}"{more}'
