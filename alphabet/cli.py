"""The `alphabet` command: its subcommands, and how a command's failure is told."""

import contextlib
import os
import sys
import threading
from collections.abc import Sequence

import click

from alphabet.lazy_group import LazyGroup

COMMANDS = {
    "run": "alphabet.run_command:run",
    "send": "alphabet.send_command:send",
    "receive": "alphabet.receive_command:receive",
    "demo": "alphabet.demo_command:demo",
    "bench": "alphabet.bench_command:bench",
}

_STANDARD_OUTPUT, _STANDARD_ERROR = 1, 2


def _say_version(ctx: click.Context, _param: click.Parameter, value: bool) -> None:  # noqa: FBT001 - click's callback
    if value:
        from alphabet.version import describe_version

        click.echo(describe_version("alphabet"))
        ctx.exit()


@click.group(cls=LazyGroup, places=COMMANDS)
@click.option(
    "--version",
    is_flag=True,
    is_eager=True,
    expose_value=False,
    callback=_say_version,
    help="Print the version, the log's format and LMDB's engine.",
)
def alphabet() -> None:
    """Count votes and never lose one."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the `alphabet` command; gives its exit code."""
    from alphabet.command_line import run_command

    return run_command(alphabet, "alphabet", argv)


def _open_standard_streams() -> None:
    """Lead standard streams that are closed to the null device.

    Else a file of the log would be given a stream's number, and be written to as one.
    """
    while (spare := os.open(os.devnull, os.O_RDWR)) <= _STANDARD_ERROR:
        pass
    os.close(spare)
    if sys.stdout is None:
        sys.stdout = os.fdopen(_STANDARD_OUTPUT, "w")
    if sys.stderr is None:
        sys.stderr = os.fdopen(_STANDARD_ERROR, "w")


def run_program() -> None:
    """Run the command as a program: its threads, if any are left, end with it."""
    _open_standard_streams()
    code = main()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    if threading.active_count() > 1:
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    run_program()
