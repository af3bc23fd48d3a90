"""`alphabet completion`, `alphabet-replay completion`: names after the Tab key."""

import click
from click.shell_completion import get_completion_class

SHELLS = ("bash", "zsh", "fish")


@click.command(
    epilog="""\b
bash:  eval "$(PROGRAM completion bash)"       in ~/.bashrc
zsh:   eval "$(PROGRAM completion zsh)"        in ~/.zshrc, after compinit
fish:  PROGRAM completion fish | source        in ~/.config/fish/config.fish
""",
)
@click.argument("shell", type=click.Choice(SHELLS))
@click.pass_context
def completion(ctx: click.Context, /, shell: str) -> None:
    """Print a script that lets a shell complete commands, options and directories."""
    root = ctx.find_root()
    program = str(root.info_name)
    variable = f"_{program.replace('-', '_').upper()}_COMPLETE"
    kind = get_completion_class(shell)
    assert kind is not None  # noqa: S101 - click has these shells
    click.echo(kind(root.command, {}, program, variable).source())
