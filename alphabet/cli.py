"""The `alphabet` command: its subcommands, and how a command's failure is told."""

import contextlib
import os
import sys
import threading
from collections.abc import Sequence

import click

from alphabet.lazy_group import LazyGroup
from alphabet.version import version_option

COMMANDS = {
    "run": "alphabet.commands.run:run",
    "send": "alphabet.commands.send:send",
    "receive": "alphabet.commands.receive:receive",
    "demo": "alphabet.commands.demo:demo",
    "health": "alphabet.commands.health:health",
    "bench": "alphabet.commands.bench:bench",
    "spark-totals": "alphabet.spark.command:spark_totals",
    "new": "alphabet.commands.new:new",
    "completion": "alphabet.commands.completion:completion",
}
EXAMPLES = {
    "alphabet demo": "count votes through a crash, and show that none is lost",
    "alphabet run --out -": "count, and print each new total",
    "alphabet send votes.txt --format lines": "send votes, and wait for the receipt",
}
EXIT_CODES = {
    0: "fine; for send, all votes are durable",
    1: "damage, something ahead of the log; a bad FILE; totals that differ; not well",
    2: "wrong usage",
    3: "cannot serve, open or reach; for send, what is durable is not known",
    4: "the server was stopped by a failed commit",
    130: "stopped with Ctrl-C, but for run, receive and spark-totals, "
    "which end in good order",
}


@click.group(cls=LazyGroup, places=COMMANDS, examples=EXAMPLES, exit_codes=EXIT_CODES)
@version_option("alphabet")
def alphabet() -> None:
    """Count votes and never lose one."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the `alphabet` command; gives its exit code."""
    from alphabet.command_line import run_command

    return run_command(alphabet, "alphabet", argv)


def run_program() -> None:
    """Run the command as a program: its threads, if any are left, end with it."""
    from alphabet.command_line import open_standard_streams

    open_standard_streams()
    code = main()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    if threading.active_count() > 1:
        os._exit(code)
    sys.exit(code)


if __name__ == "__main__":
    run_program()
