"""The documents say what the programs do: each name, option, number and command.

What is read here is Markdown as people see it: tables, fenced blocks, backticks and
links. Nothing of it is generated, so everything of it is checked.
"""

import importlib
import inspect
import re
from pathlib import Path

import click
import pytest

from alphabet import command_line, wallaroo
from alphabet.cli import COMMANDS, alphabet
from alphabet.commands import run, wallaroo_options
from recovery.cli import replay
from tests.documents import DOCUMENTS, README, quoted
from tests.process import ROOT

USERS = [ROOT / "README.md", ROOT / "docs" / "PROTOCOL.md"]
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
GLOSSARY = (ROOT / "docs" / "GLOSSARY.md").read_text(encoding="utf-8")
PACKAGES = ("alphabet", "log", "recovery")
CONSTANT = re.compile(
    r"`(\w+_MAX|\w+_BYTES)` in `([\w/]+\.py)` \| ([\d ]+)( KiB| MiB)? "
)
UNITS = {"": 1, " KiB": 1 << 10, " MiB": 1 << 20}


def commands() -> dict[str, click.Command]:
    """Give every command of both programs, by what people type."""
    found: dict[str, click.Command] = {}
    for program, group in (("alphabet", alphabet), ("alphabet-replay", replay)):
        assert isinstance(group, click.Group)
        context = click.Context(group)
        found[program] = group
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command is not None
            found[f"{program} {name}"] = command
    return found


def options(*, with_hidden: bool = False) -> list[tuple[str, click.Option]]:
    """Give every option, with its command, but for --help.

    Hidden ones are Wallaroo's, which we take and do not offer.
    """
    return [
        (name, parameter)
        for name, command in commands().items()
        for parameter in command.params
        if isinstance(parameter, click.Option)
        if with_hidden or not parameter.hidden
    ]


def identify(file: Path) -> str:
    """Name a document in a test's own name."""
    return file.relative_to(ROOT).as_posix()


every_document = pytest.mark.parametrize("file", DOCUMENTS, ids=identify)


class TestOptions:
    """README and docs/ against the click groups."""

    def test_every_command_is_documented(self) -> None:
        """Each command stands in backticks in the README."""
        names = " ".join(quoted(README))
        missing = [name for name in commands() if name.split()[-1] not in names]
        assert missing == []

    def test_every_option_is_documented_where_its_command_is(self) -> None:
        """Each option stands in the section of its command."""
        missing = [
            f"{name} {option.opts[0]}"
            for name, option in options()
            if not any(
                re.search(rf"{option.opts[0]}(?![\w-])", section)
                for section in _sections_of(name)
            )
        ]
        assert missing == []

    @pytest.mark.parametrize("file", USERS, ids=identify)
    def test_every_option_named_exists(self, file: Path) -> None:
        """An option that a document for users names is one of ours."""
        given = options(with_hidden=True)
        known = {opt for _, option in given for opt in option.opts} | {"--help"}
        named = set(re.findall(r"(?<![\w-])--[a-z][a-z-]*", file.read_text()))
        assert named - known == set()

    def test_defaults_are_those_documented(self) -> None:
        """The default that a table gives for an option is the option's own."""
        found = [
            (name, option.opts[0], written, str(option.default))
            for name, option in options()
            for written in _written_defaults(name, option.opts[0])
        ]
        assert len(found) > 10
        assert [each for each in found if each[2] != each[3]] == []

    def test_every_variable_follows_the_rule(self) -> None:
        """An option's environment variable is its own name, in capitals."""
        wrong = [
            (name, option.opts[0], option.envvar)
            for name, option in options()
            if option.opts[0] != "--version"
            and option.envvar
            != "ALPHABET_" + option.opts[0].removeprefix("--").upper().replace("-", "_")
        ]
        assert wrong == []


def _sections_of(name: str) -> list[str]:
    """Give the README's sections whose heading names the program or the command."""
    program, _, command = name.partition(" ")
    if not command:
        return [README]
    sections = re.split(r"^### ", README, flags=re.MULTILINE)[1:]
    heading = "alphabet-replay" if program == "alphabet-replay" else name
    return [each for each in sections if heading in each.partition("\n")[0]]


def _written_defaults(name: str, option: str) -> list[str]:
    """Give the default that the tables of a command's section have in backticks."""
    rows = [
        line.split(" | ") for each in _sections_of(name) for line in each.split("\n")
    ]
    command = name.rpartition(" ")[2]
    return [
        cells[1].strip("`")
        for cells in rows
        if len(cells) > 2
        and re.match(rf"\| `({command} )?{option}[ `]", cells[0])
        and cells[1].startswith("`")
    ]


class TestNumbers:
    """Codes and bounds against the code."""

    def test_exit_codes_are_those_documented(self) -> None:
        """The table has each exit code that a command may end with, and no other."""
        table = README.partition("### Exit codes")[2].partition("\n## ")[0]
        errors = [
            error
            for module in (command_line, run, click)
            for _, error in inspect.getmembers(module, inspect.isclass)
            if issubclass(error, click.ClickException)
        ]
        codes = {0, command_line.INTERRUPTED, *(error.exit_code for error in errors)}
        assert set(map(int, re.findall(r"^\| `(\d+)`", table, re.MULTILINE))) == codes

    def test_bounds_are_those_documented(self) -> None:
        """Each constant that the README bounds memory with has the value it says."""
        found = CONSTANT.findall(README)
        assert len(found) == README.count("_MAX` in `") + README.count("_BYTES` in `")
        wrong = [
            (name, path)
            for name, path, digits, unit in found
            if getattr(_module(path), name) != int(digits) * UNITS[unit]
        ]
        assert wrong == []

    def test_failpoints_are_those_documented(self) -> None:
        """The glossary lists the failpoints that the code reaches, and no other."""
        code = "".join(
            file.read_text()
            for name in PACKAGES
            for file in (ROOT / name).rglob("*.py")
        )
        reached = set(re.findall(r'failpoint\.reach\("([\w.]+)"\)', code))
        listed = GLOSSARY.partition("## Failpoints")[2]
        assert set(re.findall(r"^\| `([\w.]+)`", listed, re.MULTILINE)) == reached


def _module(path: str) -> object:
    return importlib.import_module(path.removesuffix(".py").replace("/", "."))


class TestNames:
    """What documents point at."""

    @every_document
    def test_links_lead_somewhere(self, file: Path) -> None:
        """The target of each relative link exists."""
        links = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", file.read_text())
        targets = [link for link in links if "://" not in link]
        assert [each for each in targets if not (file.parent / each).exists()] == []

    @every_document
    def test_headings_linked_to_exist(self, file: Path) -> None:
        """The heading that a link names, as GitHub makes its anchor, is there."""
        links = re.findall(r"\]\(([^)#\s]*)#([^)\s]*)\)", file.read_text())
        broken = [
            (path, anchor)
            for path, anchor in links
            if "://" not in path
            and anchor not in _anchors(file.parent / path if path else file)
        ]
        assert broken == []

    @every_document
    def test_files_named_exist(self, file: Path) -> None:
        """Each file or directory of ours that stands in backticks exists."""
        ours = (*PACKAGES, "bench", "docs", "examples", "tests", ".ci")
        paths = re.compile(rf"(?:{'|'.join(map(re.escape, ours))})/[\w./-]*")
        named = filter(paths.fullmatch, quoted(file.read_text()))
        assert [each for each in named if not (ROOT / each).exists()] == []

    @every_document
    def test_tests_named_exist(self, file: Path) -> None:
        """Each test that a document names exists."""
        tests = "".join(each.read_text() for each in (ROOT / "tests").glob("*.py"))
        named = re.findall(r"`(test_\w+)`", file.read_text())
        assert [each for each in named if f"def {each}(" not in tests] == []

    def test_every_promise_names_its_test(self) -> None:
        """Nine promises, each with at least one test that has its number."""
        stated = re.findall(
            r"^(\d)\. \*\*.*?(?=^\d\. |^## )",
            ARCHITECTURE.partition("## The nine promises")[2],
            re.DOTALL | re.MULTILINE,
        )
        assert stated == list("123456789")
        named = re.findall(r"`(test_promise_\w+)`", ARCHITECTURE)
        source = (ROOT / "tests" / "test_promises.py").read_text()
        assert named == re.findall(r"^def (test_promise_\w+)\(", source, re.MULTILINE)

    def test_the_code_map_is_complete(self) -> None:
        """The code map has every module but the packages' own, and no other."""
        modules = {
            file.relative_to(ROOT).as_posix()
            for name in PACKAGES
            for file in (ROOT / name).rglob("*.py")
            if file.name != "__init__.py"
        }
        code_map = ARCHITECTURE.partition("## Code map")[2].partition("\n## ")[0]
        tables = re.split(r"^\*\*`([\w/]+/)`, ", code_map, flags=re.MULTILINE)[1:]
        named = [
            folder + module
            for folder, table in zip(tables[::2], tables[1::2], strict=True)
            for module in re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)
            for module in re.findall(r"`(\w+\.py)`", module)
        ]
        assert sorted(named) == sorted(modules)

    def test_make_targets_named_exist(self) -> None:
        """Each `make` target that a document names is one."""
        makefile = (ROOT / "Makefile").read_text()
        targets = set(re.findall(r"^([a-z-]+):", makefile, re.MULTILINE))
        named = {
            target
            for file in DOCUMENTS
            for target in re.findall(
                r"(?:^|`)make ([a-z-]+)", file.read_text(), re.MULTILINE
            )
        }
        assert named - targets == set()


class TestWallaroo:
    """The guide for those who come from Wallaroo."""

    GUIDE = " ".join(quoted((ROOT / "docs" / "FROM_WALLAROO.md").read_text()))

    def test_every_call_is_in_it(self) -> None:
        """Each method of the builder, and each function and config, is named."""
        methods = [
            name
            for name, _ in inspect.getmembers(wallaroo.ApplicationBuilder)
            if name.islower() and not name.startswith("_")
        ]
        configs = [name for name in wallaroo.__all__ if name.endswith("Config")]
        functions = [name for name in wallaroo.__all__ if "_parse_" in name]
        wanted = [*methods, *configs, *functions, "serialize", "deserialize"]
        assert len(wanted) > 15
        missing = [name for name in wanted if not re.search(rf"\b{name}\b", self.GUIDE)]
        assert missing == []

    def test_every_option_is_in_it(self) -> None:
        """Each option of Wallaroo's is named, but for Pony's, which has one row."""
        taken = [*wallaroo_options.WITH_VALUE, *wallaroo_options.WITHOUT_VALUE]
        wanted = [names[0] for names in taken if not names[0].startswith("--pony")]
        missing = [
            name for name in wanted if not re.search(rf"{name}(?![\w-])", self.GUIDE)
        ]
        assert missing == []


def _anchors(file: Path) -> set[str]:
    text = re.sub(r"^```.*?^```$", "", file.read_text(), flags=re.DOTALL | re.MULTILINE)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w -]", "", each).lower().replace(" ", "-") for each in headings}


def test_every_command_can_be_imported() -> None:
    """What the group lists is there."""
    assert commands().keys() >= {f"alphabet {name}" for name in COMMANDS}
