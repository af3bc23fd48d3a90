"""The documents as a site: complete, whole, and of one origin."""

import html
import inspect
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

import attrs
import click
import markdown
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from alphabet import wallaroo
from alphabet.man_page import Program, commands, programs
from docs.site.__main__ import documents, lay_out, made_pages, navigation, render
from docs.site.layout import file_page, on_site, place_of, targets
from docs.site.prose import plain

marked = st.text("ab `*_[]<>&#|\\", max_size=12)
words = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FF), max_size=30)


@attrs.define
class Page(HTMLParser):
    """A page that was made: what it links to, what it loads, what can be linked to."""

    links: list[str] = attrs.field(factory=list)
    loads: list[str] = attrs.field(factory=list)
    ids: set[str] = attrs.field(factory=set)

    def __attrs_pre_init__(self) -> None:
        super().__init__()

    def handle_starttag(
        self, tag: str, attributes: list[tuple[str, str | None]]
    ) -> None:
        """Take an element."""
        for name, value in attributes:
            if name == "id" and value:
                self.ids.add(value)
            elif (tag, name) == ("a", "href") and value:
                self.links.append(value)
            elif (tag, name) == ("link", "href") or name in {"src", "srcset", "data"}:
                self.loads.append(value or "")
            elif name == "style" and value:
                self.loads += loaded(value)


def loaded(css: str) -> list[str]:
    """Give what a style sheet loads."""
    found = re.findall(r"""(?:url\(|@import\s+(?!url))\s*["']?([^"')\s;]+)""", css)
    return [each for each in found if not each.startswith("data:")]


def read(file: Path) -> Page:
    """Read a page."""
    page = Page()
    page.feed(file.read_text(encoding="utf-8"))
    return page


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the site's directory, made once; every warning was an error."""
    place = tmp_path_factory.mktemp("made")
    lay_out(place)
    assert render(place) == 0
    return place / "site"


class TestSite:
    """The site as it is made."""

    def test_no_request_leaves_the_machine(self, site: Path) -> None:
        """No page and no style sheet loads anything of another origin."""
        loads = [each for file in site.rglob("*.html") for each in read(file).loads]
        loads += [
            each for file in site.rglob("*.css") for each in loaded(file.read_text())
        ]
        assert len(loads) > 100
        assert [each for each in loads if re.match(r"\w+:|//", each)] == []

    def test_links_lead_somewhere(self, site: Path) -> None:
        """Each link within the site has its page, and there its heading."""
        pages = {file: read(file) for file in site.rglob("*.html")}
        links = [
            (file, *link.partition("#")[::2])
            for file, page in pages.items()
            for link in page.links
            if "://" not in link and file.name != "404.html"
        ]
        assert len(links) > 1000
        broken = [
            (file.relative_to(site).as_posix(), path, anchor)
            for file, path, anchor in links
            if (target := pages.get(_target(file, path))) is None
            or (anchor and unquote(anchor) not in target.ids)
        ]
        assert broken == []

    def test_a_broken_link_ends_the_build(self, tmp_path: Path) -> None:
        """A heading that is not there is an error."""
        lay_out(tmp_path)
        with (tmp_path / "pages" / "HTTP.md").open("a") as page:
            page.write("\n[nowhere](REPLAY.md#nowhere)\n")
        assert render(tmp_path) != 0

    def test_every_page_is_in_the_navigation(self) -> None:
        """Each document, and each page made of the code, has its place there, once."""
        pages = {*map(place_of, documents()), *made_pages()}
        assert sorted(navigation()) == sorted(pages), (
            "see nav in docs/site/zensical.toml"
        )


def _target(file: Path, path: str) -> Path:
    place = (file.parent / unquote(path)).resolve() if path else file
    return place / "index.html" if place.is_dir() else place


class TestMadePages:
    """What is made of the code."""

    @pytest.mark.parametrize("program", programs(), ids=lambda each: each.name)
    def test_all_of_the_help_is_there(self, program: Program) -> None:
        """Each command, with its help, its options and theirs, is on the page."""
        context = click.Context(program.group, info_name=program.name)
        shown = _shown(made_pages()[f"reference/{program.name}.md"])
        codes = program.group.exit_codes
        for each in commands(program.group, context):
            assert _squeezed(each.command.help or "") in shown
            for option in each.command.params:
                if isinstance(option, click.Option) and not option.hidden:
                    assert _squeezed(option.help or "") in shown
                    assert all(_squeezed(flag) in shown for flag in option.opts)
        assert all(_squeezed(text) in shown for text in codes.values())

    def test_every_variable_is_there(self) -> None:
        """Each variable that an option reads has a row that names the option."""
        page = made_pages()["reference/environment.md"]
        for option in _options():
            if option.envvar is not None:
                assert f"| `{option.envvar}` | `{option.opts[0]}` |" in page

    def test_the_api_is_there(self) -> None:
        """Each public class, method and function has its heading and its docstring."""
        page = made_pages()["reference/wallaroo.md"]
        shown = _shown(page)
        headings = re.findall(r"^##+ (.*)$", page, re.MULTILINE)
        for name, item in vars(wallaroo).items():
            if getattr(item, "__module__", None) != wallaroo.__name__ or name[0] == "_":
                continue
            if inspect.isclass(item) or inspect.isfunction(item):
                assert name in headings
                assert _squeezed((item.__doc__ or "").partition("\n")[0]) in shown
            if inspect.isfunction(item):
                assert f"def {name}(" in page
            if inspect.isclass(item):
                for method, function in vars(item).items():
                    if inspect.isfunction(function) and method[0] != "_":
                        assert f"{name}.{method}" in headings
        assert not any(each.startswith("_") or "._" in each for each in headings)


def _options() -> Iterator[click.Option]:
    for program in programs():
        context = click.Context(program.group, info_name=program.name)
        for each in commands(program.group, context):
            yield from (p for p in each.command.params if isinstance(p, click.Option))


def _shown(page: str) -> str:
    made = markdown.markdown(page, extensions=["tables", "def_list", "fenced_code"])
    return _squeezed(html.unescape(re.sub(r"<[^>]*>", "", made)))


def _squeezed(text: str) -> str:
    """Leave out what differs by layout: spaces, and quotes that became code."""
    return re.sub(r"[\s`]", "", text.partition("\f")[0])


class TestLayout:
    """Where documents go, and what their links become."""

    @pytest.mark.parametrize(
        ("link", "path", "made"),
        [
            ("../README.md", "docs/HTTP.md", "readme-page.md"),
            ("../../README.md#install", "docs/howto/a.md", "../readme-page.md#install"),
            ("../HTTP.md", "docs/howto/a.md", "../HTTP.md"),
            ("docs/HTTP.md", "README.md", "HTTP.md"),
            ("alphabet/a.py", "README.md", "source/alphabet/a.py.md"),
            ("pictures/a.svg", "docs/REPLAY.md", "pictures/a.svg"),
            ("#here", "docs/HTTP.md", "#here"),
            ("https://example.org/a.md", "README.md", "https://example.org/a.md"),
        ],
    )
    def test_links(self, link: str, path: str, made: str) -> None:
        """A link leads from a document's place on the site to its target's."""
        assert on_site(f"[x]({link})", path) == f"[x]({made})"

    def test_places_differ(self) -> None:
        """No two pages have one place on the site."""
        places = [*map(place_of, documents()), *made_pages()]
        assert len(set(places)) == len(places)

    @given(words)
    def test_text_is_left_alone(self, text: str) -> None:
        """What is no link and no table is as it was, and so are fenced blocks."""
        fence = f"```text\n[a](../log/b.py) `{text}`\n```"
        assert on_site(fence, "docs/HTTP.md") == fence
        if "](" not in text and not text.startswith("|"):
            assert on_site(text, "docs/HTTP.md") == text

    def test_bars_in_tables(self) -> None:
        """The code of a table's cell has its bars without backslashes."""
        assert on_site("| `A\\|B` | c |\n`A\\|B`", "README.md") == (
            "| `A|B` | c |\n`A\\|B`"
        )

    def test_targets(self) -> None:
        """Files that are linked to are found; other sites and fences are not files."""
        text = "[a](../log/a.py) [b](https://c.d)\n```sh\n[e](f.md)\n```\n[g](#h)"
        assert targets(text, "docs/HTTP.md") == ["log/a.py"]

    def test_a_file_is_shown_whole(self) -> None:
        """A page that shows a file has its name and its text, fences included."""
        page = file_page("log/a.py", "```\nx\n```\n")
        shown = markdown.markdown(page, extensions=["fenced_code"])
        assert "<h1>log/a.py</h1>" in shown
        assert "```\nx\n```\n" in html.unescape(shown)


@example("a <b> c")
@given(marked.map(str.strip).filter(lambda text: not re.match(r"[-+=~:\d]|$", text)))
def test_text_is_shown_as_it_is(text: str) -> None:
    """Whatever a help says, its page shows it; quotes in pairs are code."""
    assert _shown(plain(text)) == _squeezed(text)
