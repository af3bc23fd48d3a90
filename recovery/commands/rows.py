"""Rows of values printed: as columns for people, as JSON lines or CSV for programs."""

import csv
import json
import sys
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import click

Row = Mapping[str, Any]


def print_rows(
    rows: Iterable[Row], format_: str, for_people: Callable[[Row], Mapping[str, str]]
) -> None:
    """Print rows, all with the same keys in the same order; nothing where none are.

    `json` has an object a line, `csv` a first line with the keys; `table` has what
    `for_people` makes of each row, in columns under their names.
    """
    if format_ == "json":
        for row in rows:
            click.echo(json.dumps(row))
    elif format_ == "csv":
        writer = csv.writer(sys.stdout, lineterminator="\n")
        for number, row in enumerate(rows):
            if not number:
                writer.writerow(row)
            writer.writerow(map(_cell, row.values()))
    else:
        _print_columns([for_people(row) for row in rows])


def printable(text: str) -> str:
    """Give a text that does nothing to a terminal, and stays on its line."""
    return "".join(
        char if char.isprintable() else "\N{REPLACEMENT CHARACTER}" for char in text
    )


def _cell(value: object) -> object:
    return printable(value) if isinstance(value, str) else value


def _print_columns(cells: list[Mapping[str, str]]) -> None:
    if not cells:
        return
    lines = [list(cells[0]), *(list(row.values()) for row in cells)]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    for line in lines:
        padded = map(str.ljust, line, widths)
        click.echo("  ".join(padded).rstrip())
