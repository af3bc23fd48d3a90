"""Wallaroo's own command line: what `machida` was given, `alphabet run` takes too.

Its short options stand for ours, `--resilience-dir` is the data directory, and the rest
have no effect here, which is said once for each. None of them is in the help.
"""

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
from click.core import ParameterSource

from alphabet.journal import entries
from alphabet.journal.entries import Entry
from alphabet.network.address_list import AddressListType, flatten

NO_EFFECT = "alphabet.no_effect"
"""Where a command's context keeps the names of options without effect."""

WITH_VALUE = [
    ("--metrics", "-m"),
    ("--control", "-c"),
    ("--data", "-d"),
    ("--external", "-e"),
    ("--my-control",),
    ("--my-data",),
    ("--phone-home", "-p"),
    ("--worker-count", "-w"),
    ("--worker-name",),
    ("--join", "-j"),
    ("--stop-world", "-u"),
    ("--event-log-file-size", "-l"),
    ("--ponythreads",),
    ("--ponyminthreads",),
    ("--ponysuspendthreshold",),
    ("--ponycdmin",),
    ("--ponycdmax",),
    ("--ponygcinitial",),
    ("--ponygcfactor",),
]
WITHOUT_VALUE = [
    ("--cluster-initializer", "-t"),
    ("--log-rotation",),
    ("--ponynoscale",),
    ("--ponynoyield",),
    ("--ponynoblock",),
    ("--ponypin",),
    ("--ponynopin",),
    ("--ponypinasio",),
    ("--ponyversion",),
]
KAFKA = [
    f"--kafka_{side}_{name}"
    for side, names in {
        "source": ("topic", "brokers", "log_level"),
        "sink": (
            "topic",
            "brokers",
            "log_level",
            "max_produce_buffer_ms",
            "max_message_size",
        ),
    }.items()
    for name in names
]

Command = TypeVar("Command", bound="Callable[..., Any] | click.Command")


def wallaroo_options(command: Command) -> Command:
    """Let a command take Wallaroo's options; `adopted` brings them into ours."""
    for names in WITH_VALUE:
        command = _hidden(*names, expose_value=False, callback=_note)(command)
    for names in WITHOUT_VALUE:
        command = _hidden(*names, is_flag=True, expose_value=False, callback=_note)(
            command
        )
    for name in KAFKA:
        command = _hidden(name, expose_value=False, callback=_refuse)(command)
    addresses = {"multiple": True, "callback": flatten}
    command = _hidden("-i", "short_in", type=AddressListType(), **addresses)(command)
    out = AddressListType(or_dash=True)
    command = _hidden("-o", "short_out", type=out, **addresses)(command)
    command = _hidden("-n", "short_name")(command)
    directory = click.Path(path_type=Path)
    return _hidden("--resilience-dir", "-r", "resilience_dir", type=directory)(command)


def adopted(ctx: click.Context) -> dict[str, Any]:
    """Give a command's options with Wallaroo's in their places.

    Raises click.UsageError for a data directory that was given in both ways.
    """
    options = dict(ctx.params)
    options["inputs"] += options.pop("short_in")
    options["outputs"] += options.pop("short_out")
    options["name"] = options.pop("short_name") or options["name"]
    resilience_dir = options.pop("resilience_dir")
    if resilience_dir is not None:
        if ctx.get_parameter_source("data_dir") is not ParameterSource.DEFAULT:
            raise click.UsageError("--resilience-dir is --data-dir: give one of both")
        options["data_dir"] = resilience_dir
    return options


def notices(ctx: click.Context) -> list[Entry]:
    """Give an entry for each option that has no effect here."""
    names: list[str] = ctx.meta.get(NO_EFFECT, [])
    return [entries.option_without_effect(option=name) for name in sorted(names)]


def _hidden(*names: str, **settings: Any) -> Callable[[Command], Command]:  # noqa: ANN401 - as click.option has it
    return click.option(*names, hidden=True, **settings)


def _note(ctx: click.Context, param: click.Parameter, value: object) -> None:
    """Remember an option that was given."""
    if value not in {None, False}:
        ctx.meta.setdefault(NO_EFFECT, []).append(param.opts[0])


def _refuse(ctx: click.Context, param: click.Parameter, value: object) -> None:
    """Refuse an option of Kafka's."""
    if value is not None:
        raise click.UsageError(
            f"{param.opts[0]}: Kafka is not supported; let a client of Kafka's send to"
            " --in or --connector-in, or read from --out or --connector-out",
            ctx,
        )
