"""Finds the application that a server or a tool works with.

Alphabet's own is known by name; any other is a module that is imported, after ours,
with the working directory at the end of the path. `import wallaroo` gives it our API.
"""

import importlib
import sys
from collections.abc import Sequence
from types import ModuleType

import attrs

from alphabet.cause import describe
from alphabet.machine import Machine
from alphabet.topology import Application


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


def load_machine(module_name: str | None, args: Sequence[str]) -> Machine:
    """Make a machine of an application, Alphabet's own if no module is named.

    `args` is the command line that `application_setup` is given. Raises
    ApplicationError.
    """
    if module_name is None:
        from alphabet import application as module
    else:
        module = _import(module_name)
    try:
        setup = module.application_setup
    except AttributeError as error:
        reason = "it has no application_setup(args)"
        raise ApplicationError(module.__name__, reason) from error
    try:
        definition = setup(list(args))
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
