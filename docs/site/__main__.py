"""Make the site: `python -m docs.site [DIRECTORY]`, which is `build` if left out.

DIRECTORY gets `pages`, what Zensical reads, and `site`, what it makes.
"""

import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

from alphabet.man_page import programs
from docs.site.api_page import api_page
from docs.site.command_page import command_page, environment_page
from docs.site.layout import PICTURES, file_page, on_site, place_of, targets

ROOT = Path(__file__).parent.parent.parent
CONFIGURATION = Path(__file__).parent / "zensical.toml"
STYLE = Path(__file__).parent / "site.css"
TOP = ("README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md")


def documents() -> list[str]:
    """Name the documents that people write, as paths in the repository."""
    below = sorted([*(ROOT / "docs").rglob("*.md"), *(ROOT / "examples").rglob("*.md")])
    return [*TOP, *(file.relative_to(ROOT).as_posix() for file in below)]


def pages() -> dict[str, str]:
    """Give every page, as Markdown, by its place on the site.

    Raises:
        FileNotFoundError: A document links to a file that is not there.
    """
    made = made_pages()
    linked = set()
    for path in documents():
        text = (ROOT / path).read_text(encoding="utf-8")
        made[place_of(path)] = on_site(text, path)
        linked.update(targets(text, path))
    for path in linked:
        if not path.endswith((".md", *PICTURES)):
            text = (ROOT / path).read_text(encoding="utf-8")
            made[place_of(path)] = file_page(path, text)
    return made


def made_pages() -> dict[str, str]:
    """Give the pages that are made of the code."""
    found = programs()
    made = {f"reference/{each.name}.md": command_page(each) for each in found}
    made["reference/environment.md"] = environment_page(found)
    made["reference/wallaroo.md"] = api_page(ROOT)
    return made


def lay_out(directory: Path) -> None:
    """Write all that Zensical reads to a directory; what was there is removed."""
    place = directory / "pages"
    shutil.rmtree(place, ignore_errors=True)
    for name, text in pages().items():
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).write_text(text, encoding="utf-8")
    for file in (ROOT / "docs").rglob("*"):
        if file.suffix in PICTURES:
            target = place / place_of(file.relative_to(ROOT).as_posix())
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
    shutil.copyfile(STYLE, place / STYLE.name)
    shutil.copyfile(CONFIGURATION, directory / CONFIGURATION.name)


def navigation() -> list[str]:
    """Give the places that the site's navigation leads to, in order."""
    project = tomllib.loads(CONFIGURATION.read_text(encoding="utf-8"))["project"]
    return [
        place
        for group in project["nav"]
        for entry in group.values()
        for place in ([entry] if isinstance(entry, str) else _entries(entry))
    ]


def _entries(group: list[dict[str, str]]) -> list[str]:
    return [place for entry in group for place in entry.values()]


def render(directory: Path) -> int:
    """Make `directory / "site"` of what is laid out; give Zensical's exit code.

    A warning, such as of a link that leads nowhere, is an error.
    """
    shutil.rmtree(directory / "site", ignore_errors=True)
    command = ["build", "--strict", "--config-file", CONFIGURATION.name]
    done = subprocess.run(  # noqa: S603 - the tool that we chose
        [sys.executable, "-m", "zensical", *command], cwd=directory, check=False
    )
    return done.returncode


def main(directory: Path) -> int:
    """Lay out the pages and make the site of them; give the exit code."""
    lay_out(directory)
    return render(directory)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1] if len(sys.argv) > 1 else "build").absolute()))
