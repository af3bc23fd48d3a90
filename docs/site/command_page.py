"""A program's reference, of the very text that `--help` shows."""

import click

from alphabet.man_page import ENVIRONMENT, Program, commands, meaning, paragraphs
from docs.site.prose import plain


def command_page(program: Program) -> str:
    """Write a program's page: each command, its options, examples, exit codes."""
    group = program.group
    context = click.Context(group, info_name=program.name)
    lines = [f"# {program.name}", ""]
    for paragraph in paragraphs(group):
        lines += [plain(paragraph), ""]
    lines += ["Made of the program's own help.", ""]
    for each in commands(group, context):
        lines += _command(each)
    lines += ["## Options of the program itself", "", *_options(context)]
    lines += ["## Environment", "", plain(ENVIRONMENT), ""]
    lines += ["## Exit codes", "", "| code | meaning |", "|---|---|"]
    lines += [
        f"| `{code}` | {plain(text)} |" for code, text in group.exit_codes.items()
    ]
    lines += ["", "## Examples", "", "```sh"]
    lines += [f"{line}  # {text}" for line, text in group.examples.items()]
    return "\n".join([*lines, "```", ""])


def environment_page(programs: list[Program]) -> str:
    """Write the page of the variables: each with its option, and who has that."""
    users: dict[tuple[str, str], list[str]] = {}
    for program in programs:
        context = click.Context(program.group, info_name=program.name)
        for each in commands(program.group, context):
            for option in each.command.params:
                if isinstance(option, click.Option) and isinstance(option.envvar, str):
                    key = (option.envvar, option.opts[0])
                    users.setdefault(key, []).append(each.command_path)
    lines = ["# Environment variables", "", plain(ENVIRONMENT), ""]
    lines += ["| variable | option | of |", "|---|---|---|"]
    lines += [
        f"| `{variable}` | `{option}` | {', '.join(f'`{each}`' for each in paths)} |"
        for (variable, option), paths in sorted(users.items())
    ]
    return "\n".join([*lines, ""])


def _command(context: click.Context) -> list[str]:
    pieces = " ".join(context.command.collect_usage_pieces(context))
    lines = [f"## {context.info_name}", ""]
    lines += ["```text", f"{context.command_path} {pieces}", "```", ""]
    for each in paragraphs(context.command):
        lines += [plain(each), ""]
    return lines + _options(context)


def _options(context: click.Context) -> list[str]:
    lines = []
    for parameter in context.command.get_params(context):
        record = parameter.get_help_record(context)
        if isinstance(parameter, click.Option) and record is not None:
            value = "" if parameter.is_flag else f" {parameter.make_metavar(context)}"
            names = ", ".join(parameter.opts)
            lines += [f"`{names}{value}`", f":   {plain(meaning(parameter, context))}"]
            lines.append("")
    return lines
