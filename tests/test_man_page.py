"""Manual pages: made of what `--help` shows, kept up to date, and sound roff."""

import re
import shlex
import shutil
import subprocess
from pathlib import Path

import click
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphabet.lazy_group import LazyGroup
from alphabet.man_page import ENVIRONMENT, Program, man_page, programs
from tests.machines import write_votes
from tests.process import ROOT, SECONDS_MAX, finish

MADE = ROOT / "docs" / "man"
PROGRAMS = programs()

every_program = pytest.mark.parametrize("program", PROGRAMS, ids=lambda each: each.name)

printable = st.text(st.characters(min_codepoint=32, max_codepoint=0x2FFF), max_size=30)


def text_of(roff: str) -> str:
    """Read roff as a formatter does that knows what our pages use."""
    shown = []
    for line in roff.splitlines():
        if not line.startswith(("'", ".")):
            shown.append(line)
            continue
        macro, _, rest = line.partition(" ")
        assert macro in {'.\\"', ".TH", ".SH", ".SS", ".TP", ".PP", ".br"}, line
        if macro in {".SH", ".SS"}:
            shown.append(rest)
    text = re.sub(r"\\f[BIR]|\\&", "", "\n".join(shown))
    characters = {"-": "-", "e": "\\", "(aq": "'", "(ga": "`", "(ha": "^", "(ti": "~"}
    return re.sub(
        r"\\(-|e|\(..|\[u([0-9A-F]{4,})\])",
        lambda m: chr(int(m[2], 16)) if m[2] else characters[m[1]],
        text,
    )


def squeezed(text: str) -> str:
    """Leave out what differs by layout: spaces, and quotes that became bold."""
    return re.sub(r"[\s`]", "", text)


class TestPages:
    """The two pages."""

    @every_program
    def test_it_is_up_to_date(self, program: Program) -> None:
        """The page that is kept is the one that `make man` makes."""
        kept = (MADE / f"{program.name}.1").read_text(encoding="utf-8")
        assert kept == man_page(program), "run `make man`"

    def test_no_other_is_kept(self) -> None:
        """Each page that is kept has its program."""
        names = {f"{program.name}.1" for program in PROGRAMS}
        assert {file.name for file in MADE.iterdir()} == names

    @every_program
    def test_all_of_the_help_is_in_it(self, program: Program) -> None:
        """Each command, its help, its arguments, options, and their help are there."""
        text = squeezed(text_of(man_page(program)))
        group = program.group
        context = click.Context(group, info_name=program.name)
        for name in group.list_commands(context):
            command = group.get_command(context, name)
            assert command is not None
            inner = click.Context(command, parent=context, info_name=name)
            assert squeezed(inner.get_usage().removeprefix("Usage: ")) in text
            assert squeezed(command.help or "") in text
            for option in command.params:
                if isinstance(option, click.Option) and not option.hidden:
                    assert squeezed(option.help or "") in text
                    assert all(flag in text for flag in option.opts)

    @every_program
    def test_sections(self, program: Program) -> None:
        """The sections are those that readers of manuals look for, in their order."""
        assert re.findall(r"^\.SH (.*)$", man_page(program), re.MULTILINE)[-7:] == [
            "COMMANDS",
            "OPTIONS",
            "ENVIRONMENT",
            "EXIT STATUS",
            "FILES",
            "EXAMPLES",
            "SEE ALSO",
        ]

    @every_program
    def test_brackets_are_pairs(self, program: Program) -> None:
        """What an option takes has each bracket with its partner."""
        for line in text_of(man_page(program)).splitlines():
            if line.startswith("--"):
                assert re.fullmatch(r"([^][{}]|\[[^][]*\]|\{[^{}]*\})*", line), line

    @every_program
    def test_the_rule_of_variables_has_an_example(self, program: Program) -> None:
        """The option that shows how variables are named is one of the program's."""
        [option, variable] = re.findall(r"`([^`]+)`", ENVIRONMENT)
        context = click.Context(program.group)
        found = {
            parameter.opts[0]: parameter.envvar
            for name in program.group.list_commands(context)
            if (command := program.group.get_command(context, name)) is not None
            for parameter in command.params
        }
        assert found[option] == variable

    @pytest.mark.skipif(shutil.which("groff") is None, reason="groff is not installed")
    @every_program
    def test_groff_has_nothing_to_say(self, program: Program) -> None:
        """The formatter that `man` uses takes it without a warning."""
        done = subprocess.run(
            ["groff", "-ww", "-man", "-Tascii"],
            input=man_page(program),
            capture_output=True,
            text=True,
            timeout=SECONDS_MAX,
            check=True,
        )
        assert done.stderr == ""
        assert f"{program.name.upper()}(1)" in done.stdout


class TestExamples:
    """What is shown works."""

    def test_replay(self, tmp_path: Path) -> None:
        """Each example of `alphabet-replay` can be typed as it stands."""
        write_votes(tmp_path / "alphabet-data", snapshots=[10])
        [replay] = [each for each in PROGRAMS if each.name == "alphabet-replay"]
        for line in replay.group.examples:
            program, *words = shlex.split(line)
            done = finish("recovery.cli", *words, working_directory=tmp_path)
            assert (program, done.code) == ("alphabet-replay", 0), done

    def test_alphabet(self) -> None:
        """Each example of `alphabet` names a command and options that it has."""
        [program] = [each for each in PROGRAMS if each.name == "alphabet"]
        for line in program.group.examples:
            name, command_name, *words = shlex.split(line)
            context = click.Context(program.group)
            command = program.group.get_command(context, command_name)
            assert (name, command is None) == ("alphabet", False)
            assert command is not None
            options = {flag for each in command.params for flag in each.opts}
            assert {each for each in words if each.startswith("--")} <= options


@given(printable, printable, printable)
def test_text_is_shown_as_it_is(name: str, help_: str, option_help: str) -> None:
    """Whatever a help says, the page shows it, and no line of it is a request."""
    command = click.Command(
        "do",
        help=f"Begin. {help_}",
        params=[click.Option(["--option"], help=f"Take {option_help}")],
    )
    group = LazyGroup(
        places={"do": "nowhere:do"},
        examples={f"x {name}": "meaning"},
        exit_codes={0: help_},
        help="What it is.",
        name="x",
    )
    group.add_command(command)
    group.get_command = lambda *_: command  # type: ignore[method-assign]
    text = text_of(man_page(Program("x", group, ("y",))))
    for part in (name, help_, option_help):
        assert squeezed(part) in squeezed(text)
