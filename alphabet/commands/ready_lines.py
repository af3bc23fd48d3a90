"""The lines by which `alphabet run` tells where it listens, and that it is ready."""

import contextlib
import select
import sys

import click

from alphabet.network.address import Address
from alphabet.network.listening import HTTP
from alphabet.server import Server


def say_ready(server: Server, *, to_stderr: bool) -> None:
    """Print the lines that tell where it listens and that it is ready.

    A closed or full standard output is no reason not to count, nor not to stop.
    """
    stream = sys.stderr if to_stderr else sys.stdout
    with contextlib.suppress(OSError, ValueError):
        if select.select([], [stream], [], 0)[1]:
            _print_ready(server, to_stderr=to_stderr)


def _print_ready(server: Server, *, to_stderr: bool) -> None:
    for reception in server.receptions:
        for listener in reception.listeners:
            address = Address(*listener.socket.getsockname()[:2])
            click.echo(f"listening {reception.label} {address}", err=to_stderr)
    if server.page is not None:
        address = Address(*server.page.listener.getsockname()[:2])
        click.echo(f"listening {HTTP} {address}", err=to_stderr)
    recovered = server.opened.recovered
    if recovered is not None:
        replayed = f"Replayed {recovered.replayed} entries from recovery log file."
        click.echo(f"RESILIENCE: {replayed}", err=to_stderr)
    click.echo("Application has successfully initialized", err=to_stderr)
