"""A group of commands that imports one only when it is called for."""

from importlib import import_module

import click
from click.shell_completion import CompletionItem

_SENTENCE_MAX = 1000
"""More than a first sentence has."""


class LazyGroup(click.Group):
    """A click group whose commands are named by where they are.

    Attributes:
        places: Each command's `module:function` by its name, in the order of the help.
        examples: Command lines, and what each does.
        exit_codes: What each exit code means.
    """

    def __init__(
        self,
        *,
        places: dict[str, str],
        examples: dict[str, str],
        exit_codes: dict[int, str],
        **settings: object,
    ) -> None:
        """Take what is ours; whatever else a group takes goes to click."""
        super().__init__(**settings)  # type: ignore[arg-type]  # click's own, untyped
        self.places = places
        self.examples = examples
        self.exit_codes = exit_codes

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Name the commands."""
        del ctx
        return list(self.places)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import a command by its name."""
        del ctx
        if cmd_name not in self.places:
            return None
        module, _, name = self.places[cmd_name].partition(":")
        command: click.Command = getattr(import_module(module), name)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find a command; where there is none, those that are spelt alike are named."""
        try:
            return super().resolve_command(ctx, args)
        except click.exceptions.NoSuchCommand as error:
            name = error.command_name
            raise click.exceptions.NoSuchCommand(
                name, possibilities=self.places, ctx=ctx
            ) from error

    def format_commands(
        self, ctx: click.Context, formatter: click.HelpFormatter
    ) -> None:
        """Write each command with its whole first sentence."""
        rows = [
            (name, command.get_short_help_str(limit=_SENTENCE_MAX))
            for name in self.list_commands(ctx)
            if (command := self.get_command(ctx, name)) is not None
        ]
        with formatter.section("Commands"):
            formatter.write_dl(rows)

    def format_epilog(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the examples and the exit codes."""
        del ctx
        with formatter.section("Examples"):
            formatter.write_dl(list(self.examples.items()))
        with formatter.section("Exit codes"):
            codes = self.exit_codes.items()
            formatter.write_dl([(str(code), meaning) for code, meaning in codes])

    def shell_complete(
        self, ctx: click.Context, incomplete: str
    ) -> list[CompletionItem]:
        """Complete a command's name or an option, importing no command."""
        names = [name for name in self.places if name.startswith(incomplete)]
        options = click.Command.shell_complete(self, ctx, incomplete)
        return [*map(CompletionItem, names), *options]
