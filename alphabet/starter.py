"""An application to begin with, as the files that `alphabet new` writes.

The files are templates of this package, with the application's name in the places of
`PLACEHOLDER`; nothing here writes them anywhere.
"""

import keyword
import re
import sys
from importlib import resources
from importlib.util import find_spec

import attrs

PLACEHOLDER = "@NAME@"
NAME_CHARS_MAX = 40
"""The longest name, inclusive."""

_NAME = re.compile(r"[a-z][a-z0-9_]*")
_TAKEN = {"alphabet", "conftest", "log", "recovery", "wallaroo"}
_TEMPLATES = {
    f"{PLACEHOLDER}.py": "application.py.txt",
    f"test_{PLACEHOLDER}.py": "test.py.txt",
    "README.md": "README.md.txt",
}


@attrs.frozen
class ApplicationNameError(ValueError):
    """An application cannot be named so."""

    name: str
    reason: str

    def __str__(self) -> str:
        return f"{self.name!r} {self.reason}"


def check_name(name: str) -> None:
    """Refuse a name that no module may have, or that another module has.

    Raises:
        ApplicationNameError: It cannot be imported, or something else would be.
    """
    if _NAME.fullmatch(name) is None or len(name) > NAME_CHARS_MAX:
        raise ApplicationNameError(
            name,
            f"is no module's name: up to {NAME_CHARS_MAX} of a to z, 0 to 9 and _,"
            " a letter first",
        )
    if keyword.iskeyword(name) or keyword.issoftkeyword(name):
        raise ApplicationNameError(name, "is a word of Python's; take another name")
    is_taken = name in _TAKEN or name in sys.stdlib_module_names
    if is_taken or find_spec(name) is not None:
        raise ApplicationNameError(
            name, "is a module already, and would be imported instead; take another"
        )


def starter_files(name: str) -> dict[str, str]:
    """Give the text of each file of a new application, by the file's name."""
    templates = resources.files("alphabet") / "templates"
    return {
        file.replace(PLACEHOLDER, name): (templates / template)
        .read_text(encoding="utf-8")
        .replace(PLACEHOLDER, name)
        for file, template in _TEMPLATES.items()
    }
