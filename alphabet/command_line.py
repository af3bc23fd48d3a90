"""What the commands share on the command line: options, addresses, how they fail."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from typing import TYPE_CHECKING, Any, TypeVar

import attrs
import click

from alphabet.address import Address, AddressError, parse_address
from alphabet.allocator import keep_freed_memory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

INTERRUPTED = 130
"""The exit code of a command that Ctrl-C ended, as shells have it."""

Command = TypeVar("Command", bound="Callable[..., Any] | click.Command")


class DamageError(click.ClickException):
    """A command met damage: its line says where and what to do. Exit code 1."""

    exit_code = 1


class CannotServeError(click.ClickException):
    """A command cannot serve, open or reach something. Exit code 3."""

    exit_code = 3


@attrs.define
class AddressType(click.ParamType[Address | str]):
    """An option's value `HOST:PORT`.

    Attributes:
        or_dash: Whether `-` will do too; it is left as it is.
    """

    or_dash: bool = False
    name: str = attrs.field(default="HOST:PORT", init=False)

    def convert(
        self,
        value: object,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> Address | str:
        """Read an address, unless it is one already."""
        if isinstance(value, Address) or (value == "-" and self.or_dash):
            return value
        try:
            return parse_address(str(value))
        except AddressError as error:
            self.fail(str(error), param, ctx)


def option(
    name: str,
    *variables: str,
    **settings: Any,  # noqa: ANN401 - as click.option has it
) -> Callable[[Command], Command]:
    """Make an option that may also be set in the environment: `ALPHABET_RATE`.

    Args:
        name: The long option, such as `--rate`; the environment's name follows from
            it, without the command's.
        variables: The function's argument, if it has another name.
        settings: Whatever else `click.option` takes.
    """
    in_environment = "ALPHABET_" + name.removeprefix("--").replace("-", "_").upper()
    return click.option(
        name, *variables, envvar=in_environment, show_envvar=True, **settings
    )


@contextlib.contextmanager
def sigterm_as_sigint() -> Iterator[None]:
    """Let SIGTERM do what Ctrl-C does, so that neither leaves a process behind."""
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def run_command(
    command: click.Command, program: str, argv: Sequence[str] | None
) -> int:
    """Run a command and tell its failure in one line; gives the exit code.

    A reader of standard output that has gone away, as after `| head`, is no failure.
    """
    keep_freed_memory()
    words = None if argv is None else list(argv)
    stdout = sys.stdout
    try:
        code = command.main(words, program, standalone_mode=False)
    except click.exceptions.Exit as ending:
        return ending.exit_code
    except click.ClickException as error:
        click.echo(_failure_line(error, program), err=True)
        return error.exit_code
    except click.Abort:
        return INTERRUPTED
    except SystemExit:
        # Click's answer to a broken pipe: it ends, and has put a wrapper there.
        if sys.stdout is stdout:
            raise
        # What is still buffered has nowhere to go: Python's own flush would complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())
        return 0
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())
        click.echo(f"{program}: {error}; is its output's disk full?", err=True)
        return CannotServeError.exit_code
    return code if isinstance(code, int) else 0


def _failure_line(error: click.ClickException, program: str) -> str:
    """Say what failed; a usage error names the help, no arguments are shown it."""
    message = error.format_message()
    if not isinstance(error, click.UsageError):
        return f"{program}: {message}"
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        return message
    path = error.ctx.command_path if error.ctx else program
    return f"{path}: {message} (see '{path} --help')"
