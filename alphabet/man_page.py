"""Manual pages in roff, made of the very text that `--help` shows.

Pure, but for `main`, which writes them: `python -m alphabet.man_page DIRECTORY`.
"""

import inspect
import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

import attrs
import click

from alphabet.cli import alphabet
from alphabet.lazy_group import LazyGroup
from recovery.cli import replay

FILES = {
    "alphabet-data/log/": "the log: LMDB's own files",
    "alphabet-data/snapshots/": "states at checkpoints, which keep a replay short",
    "alphabet-data/server.lock": "held by the one server, its process id inside",
}
ENVIRONMENT = (
    "An option that is not given takes its value from the environment, whichever "
    "command has it: `--application-module` is `ALPHABET_APPLICATION_MODULE`. What is "
    "repeatable is separated by spaces there; what has no value is set by 1."
)


@attrs.frozen
class Program:
    """A program that has a manual page; `others` are the pages to see as well."""

    name: str
    group: LazyGroup
    others: tuple[str, ...]


def programs() -> list[Program]:
    """Give both programs."""
    assert isinstance(alphabet, LazyGroup)  # noqa: S101 - as they are made
    assert isinstance(replay, LazyGroup)  # noqa: S101 - as they are made
    return [
        Program("alphabet", alphabet, ("alphabet-replay",)),
        Program("alphabet-replay", replay, ("alphabet",)),
    ]


def man_page(program: Program) -> str:
    """Write a program's manual page."""
    group = program.group
    context = click.Context(group, info_name=program.name)
    contexts = commands(group, context)
    first, *rest = paragraphs(group)
    purpose = first[:1].lower() + first[1:].rstrip(".")
    lines = [
        '.\\" Made by `make man` from the commands themselves.',
        f'.TH {_escape(program.name.upper())} 1 "" Alphabet "Alphabet manual"',
        ".SH NAME",
        f"{_escape(program.name)} \\- {_text(purpose)}",
        ".SH SYNOPSIS",
    ]
    for each in contexts:
        lines += [*_usage(each), ".br"]
    lines.pop()
    if rest:
        lines += [".SH DESCRIPTION", *list(_written(rest))[1:]]
    lines.append(".SH COMMANDS")
    for each in contexts:
        lines += [f".SS {_escape(str(each.info_name))}", *_usage(each)]
        lines += _written(paragraphs(each.command))
        lines += _options(each)
    lines += [".SH OPTIONS", *_options(context)]
    lines += [".SH ENVIRONMENT", _text(ENVIRONMENT)]
    lines += [".SH EXIT STATUS", *_definitions(_exit_codes(group))]
    lines += [".SH FILES", *_definitions(FILES.items())]
    lines += [".SH EXAMPLES", *_definitions(group.examples.items())]
    also = ", ".join(f"\\fB{_escape(name)}\\fR(1)" for name in program.others)
    return "\n".join([*lines, ".SH SEE ALSO", also, ""])


def commands(group: LazyGroup, context: click.Context) -> list[click.Context]:
    """Give each command of a group, in the order of the help, as it would be called."""
    found = []
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None  # noqa: S101 - the group has just named it
        found.append(click.Context(command, parent=context, info_name=name))
    return found


def paragraphs(command: click.Command) -> list[str]:
    """Give the paragraphs of a command's help, each on one line."""
    text = inspect.cleandoc(command.help or "").partition("\f")[0]
    return [" ".join(each.split()) for each in re.split(r"\n\s*\n", text)]


def _usage(context: click.Context) -> list[str]:
    """Write how a command is called: what is fixed in bold, what stands for it not."""
    pieces = " ".join(context.command.collect_usage_pieces(context))
    return [f"\\fB{_escape(context.command_path)}\\fR {_text(pieces)}"]


def _options(context: click.Context) -> Iterator[str]:
    for parameter in context.command.get_params(context):
        record = parameter.get_help_record(context)
        if isinstance(parameter, click.Option) and record is not None:
            value = "" if parameter.is_flag else f" \\fI{_metavar(parameter, context)}"
            names = ", ".join(f"\\fB{_escape(name)}\\fR" for name in parameter.opts)
            yield from _definition(f"{names}{value}\\fR", meaning(parameter, context))


def _metavar(option: click.Option, context: click.Context) -> str:
    name = option.make_metavar(context)
    whole = re.fullmatch(r"\[([^][]*)\]|\{([^{}]*)\}", name)
    return _escape((whole[1] or whole[2]) if whole else name)


def meaning(option: click.Option, context: click.Context) -> str:
    """Say what an option does, its default and range."""
    extra = option.get_help_extra(context)
    default = [f"default: {extra['default']}"] if "default" in extra else []
    numbers = [extra["range"]] if "range" in extra else []
    facts = "; ".join([*default, *numbers])
    return " ".join([option.help or "", *([f"[{facts}]"] if facts else [])])


def _exit_codes(group: LazyGroup) -> Iterable[tuple[str, str]]:
    return ((str(code), meaning) for code, meaning in group.exit_codes.items())


def _definitions(pairs: Iterable[tuple[str, str]]) -> Iterator[str]:
    for name, meaning in pairs:
        yield from _definition(f"\\fB{_escape(name)}\\fR", meaning)


def _definition(term: str, meaning: str) -> list[str]:
    return [".TP", term, _text(meaning)]


def _written(paragraphs: Iterable[str]) -> Iterator[str]:
    for each in paragraphs:
        yield from (".PP", _text(each))


def _text(text: str) -> str:
    """Write a line of text: what stands in backticks is bold."""
    escaped = _escape(text)
    return re.sub(r"\\\(ga(.*?)\\\(ga", r"\\fB\1\\fR", escaped)


_ESCAPES = {
    "\\": "\\e",
    "-": "\\-",
    "'": "\\(aq",
    "`": "\\(ga",
    "^": "\\(ha",
    "~": "\\(ti",
}


def _escape(text: str) -> str:
    """Write text so that roff shows just that, wherever it stands in a line."""
    written = "".join(
        _ESCAPES.get(each) or (each if each.isascii() else f"\\[u{ord(each):04X}]")
        for each in text
    )
    return f"\\&{written}" if written.startswith(".") else written


def main(directory: Path) -> None:
    """Write both programs' pages to a directory."""
    for program in programs():
        file = directory / f"{program.name}.1"
        file.write_text(man_page(program), encoding="utf-8")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
