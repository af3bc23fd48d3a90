"""What this program is: its version, the log format it writes, LMDB's engine."""

from collections.abc import Callable

import click

DISTRIBUTION = "alphabet-votes"


def describe_version(program: str) -> str:
    """Say it in one line."""
    from importlib import metadata

    from log.block import FORMAT_VERSION
    from log.row import ENGINE

    version = metadata.version(DISTRIBUTION)
    return f"{program} {version}, log format {FORMAT_VERSION}, engine {ENGINE}"


def version_option(
    program: str,
) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Make the option `--version` of a program."""

    def say(ctx: click.Context, _param: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's callback
        if value and not ctx.resilient_parsing:
            click.echo(describe_version(program))
            ctx.exit()

    return click.option(
        "--version",
        is_flag=True,
        is_eager=True,
        expose_value=False,
        callback=say,
        help="Print the version, the log's format and LMDB's engine.",
    )
