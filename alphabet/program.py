"""Where both programs begin: nothing slow is imported before Ctrl-C is safe.

Python answers Ctrl-C with a traceback until somebody catches it, and imports take a
while. Until `run_command` does, the system ends the process, silently. A SIGHUP for a
server waits until it is known what that means to it: `renewal` lets it come.
"""

import signal
import sys


def run_alphabet() -> None:
    """Run `alphabet`."""
    _leave_interrupts_to_the_system()
    if sys.argv[1:2] == ["run"]:
        signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGHUP})
    from alphabet.cli import run_program

    run_program()


def run_alphabet_replay() -> None:
    """Run `alphabet-replay`."""
    _leave_interrupts_to_the_system()
    from recovery.cli import run_program

    run_program()


def _leave_interrupts_to_the_system() -> None:
    # Who ignores it, as a shell's background job does, goes on to.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
