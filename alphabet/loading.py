"""Finds the application that a server or a tool works with.

Alphabet's own is known by name; any other is a module that is imported, after ours,
with the working directory at the end of the path. `import wallaroo` gives it our API.
Words behind the module's name are the application's own command line.
"""

import importlib
import shlex
import sys
from collections.abc import Sequence
from types import ModuleType

import attrs

from alphabet.cause import describe
from alphabet.pipeline.machine import Machine
from alphabet.pipeline.topology import Application


@attrs.frozen
class ApplicationError(Exception):
    """An application module that cannot be imported, or does not give one."""

    module: str
    reason: str

    def __str__(self) -> str:
        """Name the module and the cause."""
        return f"application module {self.module!r}: {self.reason}"


ADDRESSES = 8
"""How many addresses an application may ask a tool for that knows no log of it."""


def offline_arguments(pipelines_count: int = ADDRESSES) -> list[str]:
    """Give a command line with as many addresses as a log's application may ask for.

    A tool binds and dials none of them.
    """
    word = ",".join(["127.0.0.1:0"] * max(pipelines_count, 1))
    return ["--in", word, "--out", word]


def load_machine(application: str | None, args: Sequence[str]) -> Machine:
    """Make a machine of an application, Alphabet's own if none is named.

    `application` is a module's name and, as a shell would read them, options of its
    own; they come behind `args` in what `application_setup` is given. Raises
    ApplicationError.
    """
    own: list[str] = []
    if application is None:
        from alphabet import application as module
    else:
        module_name, own = _words(application)
        module = _import(module_name)
    try:
        setup = module.application_setup
    except AttributeError as error:
        reason = "it has no application_setup(args)"
        raise ApplicationError(module.__name__, reason) from error
    try:
        definition = setup([*args, *own])
    except (Exception, SystemExit) as error:
        raise ApplicationError(module.__name__, describe(error)) from error
    if not isinstance(definition, Application):
        reason = (
            f"application_setup returned {type(definition).__name__}, not what "
            "ApplicationBuilder.build() returns"
        )
        raise ApplicationError(module.__name__, reason)
    try:
        return Machine(definition, module)
    except (Exception, SystemExit) as error:
        raise ApplicationError(module.__name__, describe(error)) from error


def _words(application: str) -> tuple[str, list[str]]:
    """Split a module's name from its options."""
    try:
        words = shlex.split(application)
    except ValueError as error:
        raise ApplicationError(application, describe(error)) from error
    return words[0] if words else "", words[1:]


def _import(module_name: str) -> ModuleType:
    from alphabet import wallaroo

    if "" not in sys.path:
        sys.path.append("")
    # It stays: the application may import it as late as in an event.
    sys.modules["wallaroo"] = wallaroo
    try:
        return importlib.import_module(module_name)
    except (Exception, SystemExit) as error:
        raise ApplicationError(module_name, describe(error)) from error
