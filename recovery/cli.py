"""The `alphabet-replay` command: look at a log, rebuild its state, prove it.

Every command runs in a child process: a file so damaged that looking at it kills the
process is a finding, not a crash.
"""

import os
import re
import signal
import sys
from collections.abc import Sequence

import click

from alphabet.command_line import DamageError, open_standard_streams, run_command
from alphabet.lazy_group import LazyGroup
from alphabet.version import version_option
from recovery.child import DAMAGE_SIGNALS, run_in_child
from recovery.priority import find_server

PROGRAM = "alphabet-replay"
COMMANDS = {
    "state": "recovery.commands.state:state",
    "info": "recovery.commands.info:info",
    "verify": "recovery.commands.verify:verify",
    "compact": "recovery.commands.compact:compact",
    "backup": "recovery.commands.backup:backup",
    "salvage": "recovery.commands.salvage:salvage",
    "snapshots": "recovery.commands.snapshots:snapshots",
    "rejects": "recovery.commands.rejects:rejects",
    "events": "recovery.commands.events:events",
    "export": "recovery.commands.export:export",
    "import": "recovery.commands.import_:import_",
    "plot": "recovery.commands.plot:plot",
    "completion": "alphabet.commands.completion:completion",
}
EXAMPLES = {
    "alphabet-replay verify alphabet-data": "say whether log and snapshots are sound",
    "alphabet-replay state alphabet-data": "print the totals as they are now",
    "alphabet-replay state alphabet-data --at 5 --json": "as they were after event 5",
}
EXIT_CODES = {
    0: "fine",
    1: "damage, or something ahead of the log",
    2: "wrong usage",
    3: "cannot open or reach",
    130: "stopped with Ctrl-C",
}


@click.group(cls=LazyGroup, places=COMMANDS, examples=EXAMPLES, exit_codes=EXIT_CODES)
@version_option(PROGRAM)
def replay() -> None:
    """Look at a log, rebuild its state at any event, and prove that both are sound.

    Works beside a live server, on a stopped one's data directory and on a read-only
    copy; changes nothing in it.
    """


def main(argv: Sequence[str] | None = None) -> int:
    """Run the `alphabet-replay` command in this process; gives its exit code."""
    return run_command(replay, PROGRAM, argv)


def run_program() -> None:
    """Run the command as a program, in a child that damage may kill."""
    open_standard_streams()
    code = run_in_child(main, find_server(sys.argv[1:]))
    if -code in DAMAGE_SIGNALS:
        name = signal.Signals(-code).name
        reason = (
            f"reading the log ended the process with {name}: its file is damaged; "
            "'alphabet-replay verify' names where, 'alphabet-replay salvage' saves "
            "what is intact"
        )
        if "verify" in sys.argv and _is_json_asked():
            from recovery.commands.verify import verification_json
            from recovery.verify import DAMAGE, Finding, Verification

            finding = Finding(DAMAGE, "log", reason)
            click.echo(verification_json(Verification(findings=[finding])))
        click.echo(f"{PROGRAM}: {reason}", err=True)
        code = DamageError.exit_code
    # A child that was told to end, ends us as shells have it.
    sys.exit(code if code >= 0 else 128 - code)


def _is_json_asked() -> bool:
    """Say whether the command line, which the child has read, asks for JSON."""
    words = " ".join(sys.argv[1:])
    asked = re.search(r"(?:^| )--(?:json|format[ =]json)(?: |$)", words)
    return bool(asked) or os.environ.get("ALPHABET_FORMAT") == "json"


if __name__ == "__main__":
    run_program()
