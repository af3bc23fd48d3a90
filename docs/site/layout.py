"""Where a document of the repository is on the site, and what its links become.

Pure. A place is a path with `/`, relative to the repository or to the site. Documents
in docs/ lose that directory, those at the top keep their names, but for the README: it
would be taken for the site's first page. An example's README takes the example's name.
Whatever else a link leads to, as a module, is shown on a page of its own.
"""

import posixpath
import re
from collections.abc import Callable

README = "README.md"
README_PLACE = "readme-page.md"
SOURCES = "source"
"""The directory of the pages that show files as they are."""

PICTURES = (".svg", ".png")

_FENCE = re.compile(r"^(```.*?^```)$", re.DOTALL | re.MULTILINE)
_LINK = re.compile(r"\]\(([^)\s#]*)(#[^)\s]*)?\)")
_ROW_CODE = re.compile(r"`[^`\n]*`")


def place_of(path: str) -> str:
    """Give the place on the site of a file of the repository."""
    if path == README:
        return README_PLACE
    if path.endswith(".md") and "/" not in path:
        return path
    if path.startswith("examples/") and path.endswith("/README.md"):
        return path.removesuffix("/README.md") + ".md"
    if path.startswith("docs/") and path.endswith((".md", *PICTURES)):
        return path.removeprefix("docs/")
    return f"{SOURCES}/{path}.md"


def targets(text: str, path: str) -> list[str]:
    """Give the files of the repository that a document links to, in order."""
    return [
        _resolve(found[1], path)
        for part in _FENCE.split(text)[::2]
        for found in _LINK.finditer(part)
        if _is_ours(found[1])
    ]


def on_site(text: str, path: str) -> str:
    """Give a document as the site has it: its links, and bars in the code of tables.

    A backslash before such a bar is needed on GitHub; Zensical would show it.
    """
    parts = _FENCE.split(text)
    place = place_of(path)
    parts[::2] = [_bars(_LINK.sub(_relinked(path, place), each)) for each in parts[::2]]
    return "".join(parts)


def file_page(path: str, text: str) -> str:
    """Give the page that shows a file as it is."""
    language = "python" if path.endswith(".py") else "text"
    return f"# {path}\n\n````{language}\n{text}````\n"


def _relinked(path: str, place: str) -> Callable[[re.Match[str]], str]:
    def relink(found: re.Match[str]) -> str:
        if not _is_ours(found[1]):
            return found[0]
        target = place_of(_resolve(found[1], path))
        relative = posixpath.relpath(target, posixpath.dirname(place) or ".")
        return f"]({relative}{found[2] or ''})"

    return relink


def _is_ours(target: str) -> bool:
    return bool(target) and "://" not in target


def _resolve(target: str, path: str) -> str:
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), target))


def _bars(text: str) -> str:
    lines = [
        _ROW_CODE.sub(lambda code: code[0].replace("\\|", "|"), line)
        if line.startswith("|")
        else line
        for line in text.split("\n")
    ]
    return "\n".join(lines)
