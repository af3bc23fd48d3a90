"""A group of commands that imports one only when it is called for."""

from importlib import import_module

import click


class LazyGroup(click.Group):
    """A click group whose commands are named by where they are.

    `places` maps a command's name to `module:function`, in the order of the help.
    """

    def __init__(self, *, places: dict[str, str], **settings: object) -> None:
        """Take the places; whatever else a group takes goes to click."""
        super().__init__(**settings)  # type: ignore[arg-type]  # click's own, untyped
        self.places = places

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
