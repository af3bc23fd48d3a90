"""What is installed is what was chosen: `python -m tests.audit`, in the environment.

Offline, in a moment: every library that we reach is pinned in constraints.txt and is
there in that version, every dependency of pyproject.toml has a lower bound, every
licence is one that we allow, and every file is as its distribution recorded it. What
vulnerabilities are known of these versions is for `make audit-online`.
"""

import base64
import hashlib
import re
import sys
import tomllib
from collections.abc import Iterator
from importlib.metadata import Distribution, PackageNotFoundError, distribution
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parent.parent
OURS = "alphabet-votes"
LICENCES = re.compile(
    r"\b(MIT|BSD|Apache|PSF|Python Software Foundation|MPL|Mozilla Public License"
    r"|OpenLDAP|OLDAP|HPND|ISC|0BSD|Zlib|MIT-CMU)\b",
    re.IGNORECASE,
)
HEADER_ONLY = 10_000
"""How much of a licence's text names it."""


def main() -> int:
    """Print what is wrong; 1 if anything is."""
    found = list(findings())
    for line in found:
        print(line, file=sys.stderr)  # noqa: T201 - a tool's output
    return 1 if found else 0


def findings() -> Iterator[str]:
    """Give what is wrong, a line each."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    for text in [
        *project["dependencies"],
        *(each for it in extras.values() for each in it),
    ]:
        yield from check_bound(Requirement(text))
    pins = read_pins((ROOT / "constraints.txt").read_text())
    for name, found in sorted(reached().items()):
        if found is None:
            yield f"{name}: is needed and not installed"
            continue
        if pins.get(name) != found.version:
            yield f"{name}: {found.version} is installed, {pins.get(name)} is pinned"
        yield from check_licence(name, found)
        yield from check_files(name, found)


def check_bound(requirement: Requirement) -> Iterator[str]:
    """Find a dependency without a lower bound."""
    is_ours = canonicalize_name(requirement.name) == OURS
    if not is_ours and not any(each.operator == ">=" for each in requirement.specifier):
        yield f"{requirement}: it has no lower bound"


def read_pins(text: str) -> dict[str, str]:
    """Give each library's version, as constraints.txt has it."""
    lines = [line.partition(";")[0].strip() for line in text.splitlines()]
    pairs = [line.split("==") for line in lines if line]
    return {canonicalize_name(name): version for name, version in pairs}


def reached() -> dict[str, Distribution | None]:
    """Give each library that we need here, with those that it needs; None: missing."""
    found: dict[str, Distribution | None] = {}
    waiting = [(OURS, frozenset({"dev", "docs", "parquet", "plot"}))]
    seen = set()
    while waiting:
        name, extras = waiting.pop()
        if (name, extras) in seen:
            continue
        seen.add((name, extras))
        try:
            found[name] = distribution(name)
        except PackageNotFoundError:
            found[name] = None
            continue
        for text in found[name].requires or []:  # type: ignore[union-attr]
            needed = Requirement(text)
            marker = needed.marker
            if marker is None or any(
                marker.evaluate({"extra": extra}) for extra in ("", *extras)
            ):
                waiting.append(
                    (canonicalize_name(needed.name), frozenset(needed.extras))
                )
    del found[OURS]
    return found


def check_licence(name: str, found: Distribution) -> Iterator[str]:
    """Find a licence that is not on the list."""
    said = [
        value
        for field in ("License-Expression", "Classifier", "License")
        for value in found.metadata.get_all(field, [])
        if field != "Classifier" or value.startswith("License")
    ]
    text = " ".join(said)[:HEADER_ONLY]
    if not LICENCES.search(text):
        yield f"{name}: its licence is not on the list: {text[:99] or 'it names none'}"


def check_files(name: str, found: Distribution) -> Iterator[str]:
    """Find files that are not as they were installed."""
    for file in found.files or []:
        if file.hash is None:
            continue
        try:
            data = Path(str(file.locate())).read_bytes()
        except OSError:
            yield f"{name}: {file} is missing"
            continue
        digest = hashlib.new(file.hash.mode, data).digest()
        if base64.urlsafe_b64encode(digest).rstrip(b"=").decode() != file.hash.value:
            yield f"{name}: {file} was changed"


if __name__ == "__main__":
    sys.exit(main())
