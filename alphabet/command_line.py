"""What the commands share on the command line: options, addresses, how they fail."""

from __future__ import annotations

import contextlib
import errno
import io
import math
import os
import re
import signal
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO, TypeVar

import attrs
import click
from click.core import ParameterSource

from alphabet.allocator import keep_freed_memory
from alphabet.network.address import Address, AddressError, parse_address
from alphabet.pipeline.ending import ending_line

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from alphabet.network.certificates import Certificates

COOKIE_BYTES_MAX = (1 << 16) - 1
"""The longest cookie that the connector protocol can carry."""
_TLS_HELP = {
    "--tls-cert": "Our certificate, PEM, its intermediates behind it: makes it TLS.",
    "--tls-key": "The certificate's key, PEM, which no one else may read.",
    "--tls-client-ca": "Who connects must have a certificate of this authority, PEM.",
    "--tls-ca": "Dial with TLS, and trust this authority's certificates, PEM.",
}
INTERRUPTED = 130
"""The exit code of a command that Ctrl-C ended, as shells have it."""

HOST_NAME = re.compile(r"(?=.{1,253}$)[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*")
"""What a host is called, in ASCII: labels with dots between."""

_RANGES = (click.IntRange, click.FloatRange)
_STANDARD_OUTPUT, _STANDARD_ERROR = 1, 2

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
        or_none: Whether `none` will do too; as `-`.
    """

    or_dash: bool = False
    or_none: bool = False
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
        if value == "none" and self.or_none:
            return value
        try:
            return parse_address(str(value))
        except AddressError as error:
            self.fail(str(error), param, ctx)


class HostNameType(click.ParamType[str]):
    """An option's value that is a host's name: no scheme, port or path."""

    name = "NAME"

    def convert(
        self,
        value: str,
        param: click.Parameter | None,
        ctx: click.Context | None,
    ) -> str:
        """Take a name, unless it is none."""
        if HOST_NAME.fullmatch(value) is None:
            self.fail(
                f"{value!r} is no host's name, such as votes.example: no scheme, port "
                "or path",
                param,
                ctx,
            )
        return value


class _Option(click.Option):
    """An option that tells in words which numbers it takes, and where one came from."""

    def type_cast_value(self, ctx: click.Context, value: object) -> Any:  # noqa: ANN401 - as click has it
        """Convert a value; one out of the range is told what the range is."""
        try:
            converted = super().type_cast_value(ctx, value)
        except click.BadParameter as error:
            if isinstance(self.type, _RANGES) and "not in the range" in error.message:
                message = f"it must be {_in_words(self.type)}, not {value}."
                raise click.BadParameter(message, ctx, self) from error
            raise
        if isinstance(converted, float) and math.isnan(converted):
            # It is neither below nor above any bound, so it would pass as within.
            raise click.BadParameter(f"{value} is no number.", ctx, self)
        return converted

    def get_error_hint(self, ctx: click.Context | None) -> str:
        """Name the option, and its variable where the value is from there."""
        hint = click.Parameter.get_error_hint(self, ctx)
        source = None if ctx is None else ctx.get_parameter_source(self.name)
        is_from_there = source is ParameterSource.ENVIRONMENT
        return f"{hint} ({self.envvar})" if is_from_there else hint

    def make_metavar(self, ctx: click.Context) -> str:
        """Say what stands for the value."""
        if self.metavar is None and isinstance(self.type, _RANGES):
            return "NUMBER"
        return super().make_metavar(ctx)

    def get_help_extra(self, ctx: click.Context) -> Any:  # noqa: ANN401 - as click has it
        """Give what the help adds in brackets."""
        extra = super().get_help_extra(ctx)
        if isinstance(self.type, _RANGES) and "range" in extra:
            extra["range"] = _in_words(self.type)
        return extra


def _in_words(numbers: click.IntRange | click.FloatRange) -> str:
    """Say which numbers a range takes."""
    least, most = numbers.min, numbers.max
    above = "more than" if numbers.min_open else "at least"
    below = "less than" if numbers.max_open else "at most"
    words = [] if least is None else [f"{above} {least}"]
    return " and ".join(words if most is None else [*words, f"{below} {most}"])


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
        name,
        *variables,
        cls=_Option,
        envvar=in_environment,
        show_envvar=True,
        **settings,
    )


def tls_options(*names: str) -> Callable[[Command], Command]:
    """Make those of the options for TLS that a command has, by their names."""

    def add(command: Command) -> Command:
        for name in reversed(names):
            command = option(
                name,
                type=click.Path(path_type=Path),
                metavar="FILE",
                help=_TLS_HELP[name],
            )(command)
        return command

    return add


def load_certificates(
    certificate: Path | None,
    key: Path | None,
    client_ca: Path | None = None,
    ca: Path | None = None,
) -> Certificates | None:
    """Load what options for TLS name; None if they name nothing.

    Raises click.UsageError for options that need others, CannotServeError for files.
    """
    if (certificate is None) != (key is None):
        raise click.UsageError("--tls-cert and --tls-key need each other")
    if client_ca is not None and certificate is None:
        raise click.UsageError("--tls-client-ca needs --tls-cert and --tls-key")
    if certificate is None and ca is None:
        return None
    from alphabet.network.certificates import Certificates, TlsFiles
    from alphabet.network.tls import TlsFileError

    try:
        return Certificates.load(TlsFiles(certificate, key, client_ca, ca))
    except TlsFileError as error:
        raise CannotServeError(str(error)) from error


def read_cookie(file: Path | None) -> bytes:
    """Read a connector's cookie, without a final newline; no file, no cookie.

    Raises CannotServeError.
    """
    if file is None:
        return b""
    try:
        with file.open("rb") as stream:
            # No more than shows that it is too long: a device has no end.
            cookie = stream.read(COOKIE_BYTES_MAX + 2)
    except OSError as error:
        reason = error.strerror or str(error)
        raise CannotServeError(f"cannot read the cookie in {file}: {reason}") from error
    cookie = cookie.removesuffix(b"\n")
    if len(cookie) > COOKIE_BYTES_MAX:
        raise CannotServeError(
            f"the cookie in {file} has more than {COOKIE_BYTES_MAX} bytes, the most"
        )
    return cookie


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
        # What began the program may have left Ctrl-C to the system.
        if signal.getsignal(signal.SIGINT) is signal.SIG_DFL:
            signal.signal(signal.SIGINT, signal.default_int_handler)
        code = _result(command, words, program)
        stdout.flush()
    except click.exceptions.Exit as ending:
        code = ending.exit_code
    except (click.ClickException, MemoryError) as error:
        click.echo(_failure_line(error, program), err=True)
        code = getattr(error, "exit_code", CannotServeError.exit_code)
    except (click.Abort, KeyboardInterrupt):
        code = INTERRUPTED
    except SystemExit as ending:
        # Click ends so when it has answered a shell that completes a word, and for a
        # broken pipe, where it has put a wrapper.
        code = ending.code
        if sys.stdout is not stdout:
            _drop_output(stdout)
            code = 0
        elif not isinstance(code, int):
            raise
    except OSError as error:
        _drop_output(stdout)
        code = 0
        if error.errno != errno.EPIPE:
            click.echo(f"{program}: {_system_failure(error)}", err=True)
            code = CannotServeError.exit_code
    return code if isinstance(code, int) else 0


def _result(command: click.Command, words: list[str] | None, program: str) -> object:
    """Give what a command returns; CannotServeError if an application ends it."""
    try:
        return command.main(words, program, standalone_mode=False)
    except BaseException as error:
        line = ending_line(error)
        if line is None:
            raise
        raise CannotServeError(line) from error


def _drop_output(stdout: TextIO) -> None:
    """Let go of what is still buffered: Python's own flush would complain."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stdout.fileno())


def _out_of_memory(error: MemoryError) -> str:
    """Say that memory ran out, and what for if that is known."""
    cause = f" ({error})" if str(error) else ""
    return f"out of memory{cause}; give it more (ulimit -v, a container's limit)"


def _system_failure(error: OSError) -> str:
    """Say what the system refused; without a file, it was standard output."""
    if error.filename is not None:
        return f"{error.filename}: {error.strerror}"
    return f"cannot write to standard output: {error.strerror or error}"


def open_standard_streams() -> None:
    """Lead standard streams that are closed to the null device.

    Else a file of the log would be given a stream's number, and be written to as one.
    What standard output's encoding has no bytes for is written with a backslash.
    """
    while (spare := os.open(os.devnull, os.O_RDWR)) <= _STANDARD_ERROR:
        pass
    os.close(spare)
    if sys.stdout is None:
        sys.stdout = os.fdopen(_STANDARD_OUTPUT, "w")
    if sys.stderr is None:
        sys.stderr = os.fdopen(_STANDARD_ERROR, "w")
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A file's name may be any bytes; standard error is so from its beginning.
        sys.stdout.reconfigure(errors="backslashreplace")


def _failure_line(error: click.ClickException | MemoryError, program: str) -> str:
    """Say what failed; a usage error names the help, no arguments are shown it."""
    if isinstance(error, MemoryError):
        return f"{program}: {_out_of_memory(error)}"
    message = error.format_message()
    if not isinstance(error, click.UsageError):
        return f"{program}: {message}"
    if isinstance(error, click.exceptions.NoArgsIsHelpError):
        return message
    path = error.ctx.command_path if error.ctx else program
    return f"{path}: {message} (see '{path} --help')"
