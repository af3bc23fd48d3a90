"""Everything that a server says in its journal: one function for each kind of entry.

An entry's kind is its function's name, its facts are the arguments, its sentence is for
people. Kinds and facts stay as they are, for machines read them; sentences may change.
docs/JOURNAL.md has the table, which a test holds to this page.

Pure.
"""

import functools
import inspect
from collections.abc import Callable, Mapping
from typing import ParamSpec

import attrs

from log.row import Reject
from recovery.counted import counted

INFO, WARNING, ERROR = "info", "warning", "error"
"""As it should be; somebody should look at it; it does not work any more."""

Fact = str | int | None
P = ParamSpec("P")


@attrs.frozen
class Kind:
    """What the entries of a function have in common.

    Those with the same facts `same` are paced together, see `repeats`; None is for what
    is said once, or paced where it is found.
    """

    name: str
    level: str
    meaning: str
    facts: tuple[str, ...]
    same: tuple[str, ...] | None
    summed_as: str


@attrs.frozen
class Entry:
    """One thing to say; `count` above 1 stands for so many, of which it is the last."""

    kind: Kind
    facts: Mapping[str, Fact]
    sentence: str
    count: int = 1

    @property
    def text(self) -> str:
        """The sentence, or how many there were and the last one's."""
        if self.count == 1:
            return self.sentence
        return f"{self.count} more {self.kind.summed_as}; the last: {self.sentence}"

    @property
    def pace_key(self) -> tuple[Fact, ...] | None:
        """What entries have alike that repeat each other; None if none does."""
        if self.kind.same is None:
            return None
        return (self.kind.name, *(self.facts[name] for name in self.kind.same))


KINDS: dict[str, Kind] = {}
"""All kinds by name."""


def _kind(
    level: str, same: tuple[str, ...] | None = None, summed_as: str = "like it"
) -> Callable[[Callable[P, str]], Callable[P, Entry]]:
    """Make a function that writes a sentence give a whole entry."""

    def give_entries(write: Callable[P, str]) -> Callable[P, Entry]:
        facts = tuple(inspect.signature(write).parameters)
        meaning = (write.__doc__ or "").splitlines()[0]
        name = write.__name__.replace("_", "-")
        kind = KINDS[name] = Kind(name, level, meaning, facts, same, summed_as)

        @functools.wraps(write)
        def entry(*words: P.args, **facts: P.kwargs) -> Entry:
            return Entry(kind, dict(facts), write(*words, **facts))  # type: ignore[arg-type]

        return entry

    return give_entries


@_kind(INFO)
def page_moved(*, address: str) -> str:
    """The page's default port is taken; it has another one."""
    return f"{address} is taken: the page has another port"


@_kind(WARNING)
def state_pickled(*, state: str) -> str:
    """A state is stored with pickle, for its application says nothing better."""
    return (
        f"state {state!r} goes through pickle: give its builder dump and load, or "
        "the module serialize and deserialize"
    )


@_kind(WARNING)
def snapshot_set_aside(*, file: str, reason: str) -> str:
    """A snapshot that cannot be used was renamed."""
    return f"set aside {file}: {reason}"


@_kind(WARNING)
def snapshot_passed_over(*, sequence: int, reason: str) -> str:
    """A snapshot is not used, and stays."""
    return f"snapshot {sequence} is passed over: {reason}"


@_kind(WARNING)
def tail_lost(*, sequence: int, subjects: str) -> str:
    """The log ends before these; the operator has let them go on from its end."""
    return (
        f"the log ends at {sequence}, before {subjects}: they go on from the log's end"
    )


@_kind(INFO)
def sink_new(*, sink: str, sequence: int, known: str) -> str:
    """A name that the log does not know was given a cursor."""
    return (
        f"sink {sink} is new: starts after sequence {sequence} (known sinks: {known})"
    )


@_kind(INFO, same=("sink",))
def sink_connected(
    *, sink: str, address: str, sequence: int, offset: int, sink_offset: int | None
) -> str:
    """A receiver is there, and gets what follows `sequence`.

    `offset` is the bytes that our cursor stands for, `sink_offset` those that a
    two-phase sink says it has.
    """
    del offset, sink_offset
    return f"sink {sink}: connected to {address}, goes on after sequence {sequence}"


@_kind(WARNING, same=("sink", "cause"))
def sink_lost(*, sink: str, address: str, cause: str, sequence: int) -> str:
    """A receiver's connection has ended; it is dialled again."""
    return (
        f"sink {sink}: connection to {address} ended: {cause}; goes on after "
        f"sequence {sequence}"
    )


@_kind(WARNING, same=("sink", "cause"))
def sink_unreachable(*, sink: str, address: str, cause: str) -> str:
    """A receiver cannot be dialled; said again when the cause is another."""
    return f"sink {sink}: cannot reach {address}: {cause}; trying on, counting goes on"


@_kind(WARNING, same=("sink",))
def sink_refused(*, sink: str, address: str, transaction: str, sequence: int) -> str:
    """A two-phase sink has voted against a transaction; it is sent anew."""
    return (
        f"sink {sink}: {address} has refused transaction {transaction}; the outputs "
        f"after sequence {sequence} are sent again"
    )


@_kind(ERROR)
def sink_stopped(*, sink: str, cause: str) -> str:
    """A sink cannot go on, for the log cannot give its outputs; /readyz is 503."""
    return f"sink {sink} has stopped: {cause}"


@_kind(ERROR)
def console_stopped(*, cause: str) -> str:
    """Nobody reads standard output any more, or the log cannot give the outputs."""
    return f"--out - has stopped: {cause}"


@_kind(WARNING, summed_as="turned away")
def sender_refused(*, peer: str, connections_max: int) -> str:
    """A sender came when as many were there as may be; a line a second at most."""
    return f"refused {peer}: {connections_max} connections are open (--max-connections)"


@_kind(WARNING, summed_as="turned away")
def sender_ended(*, peer: str, reason: str) -> str:
    """A connector sender broke the protocol, or was late; a line a second at most."""
    return f"{peer}: {reason}"


@_kind(WARNING, same=("cause",))
def senders_wait(*, cause: str, connections: int) -> str:
    """No more senders are accepted for now; those that are in go on."""
    return f"new senders wait: {cause}; {connections} are connected"


@_kind(INFO)
def messages_repeated(*, messages: int) -> str:
    """At the end: so many messages of connector senders had been counted before."""
    return f"{messages} messages came again, and counted once"


@_kind(WARNING, summed_as="rejected or failed")
def vote_rejected(*, peer: str, position: int | None, reason: str, cause: str) -> str:
    """A vote was refused before the log; a line a second at most."""
    place = "" if position is None else f" at byte {position}"
    return f"rejected from {peer}{place} ({reason}): {cause}"


@_kind(WARNING, summed_as="rejected or failed")
def event_failed(*, sequence: int, reason: str, cause: str) -> str:
    """An event of the log yields no output; a line a second at most."""
    return f"failed event {sequence} ({reason}): {cause}"


def reject_noted(reject: Reject) -> Entry:
    """Say who sent what, where, and why it does not count."""
    reason, cause = reject.reason, reject.cause
    if reject.sequence:
        return event_failed(sequence=reject.sequence, reason=reason, cause=cause)
    return vote_rejected(
        peer=reject.peer, position=reject.position, reason=reason, cause=cause
    )


@_kind(ERROR, same=())
def disk_full(*, sequence: int, cause: str) -> str:
    """Nothing can be stored after `sequence`; senders wait, it is tried each second."""
    del sequence
    return cause


@_kind(INFO, same=())
def disk_has_room(*, sequence: int) -> str:
    """What waited is stored, up to `sequence`."""
    del sequence
    return "there is room on the disk again: counting goes on"


@_kind(WARNING, same=())
def snapshot_failed(*, sequence: int, cause: str) -> str:
    """A snapshot could not be written; the next one is tried when it is due."""
    return (
        f"no snapshot at sequence {sequence}: {cause}; a restart replays more until "
        "one can be written"
    )


@_kind(INFO, same=())
def certificates_renewed() -> str:
    """SIGHUP: the files were read, and new connections have what they say."""
    return "certificates were read again, for new connections"


@_kind(ERROR, same=("cause",))
def certificates_kept(*, cause: str) -> str:
    """SIGHUP: a file cannot be used; nothing has changed."""
    return f"{cause}; the certificates of before are kept"


@_kind(INFO, same=())
def nothing_to_renew() -> str:
    """SIGHUP: no certificates are used, so there was nothing to read again."""
    return "there is nothing to read again: no certificates are used"


@_kind(WARNING)
def option_without_effect(*, option: str) -> str:
    """An option of Wallaroo's was given that has nothing to do here."""
    ours = "; the data directory is --data-dir" if option == "--data" else ""
    return f"{option} has no effect here{ours}"


@_kind(WARNING)
def nobody_notified(*, path: str) -> str:
    """NOTIFY_SOCKET names no place that a service manager could listen at."""
    return f"NOTIFY_SOCKET is no path: {path}; nobody is notified"


@_kind(WARNING, same=("cause",))
def manager_deaf(*, cause: str) -> str:
    """The service manager's socket takes nothing; counting goes on."""
    return f"the service manager does not hear us: {cause}"


@_kind(ERROR)
def page_ended(*, cause: str) -> str:
    """The page's thread has died; counting goes on without it."""
    return f"the page has ended: {cause}; counting goes on"


@_kind(ERROR, same=("cause",))
def page_fault(*, path: str, cause: str) -> str:
    """The page could not answer a request; a fault of ours."""
    return f"the page cannot answer {path}: {cause}"


@_kind(ERROR, same=("cause",))
def page_trouble(*, cause: str) -> str:
    """Something at the page's sockets failed, and no request can be named for it."""
    return f"the page has trouble with connections: {cause}"


@_kind(WARNING)
def entries_lost(*, entries: int) -> str:
    """Standard error took nothing for a while, and so many entries were let go."""
    return f"{entries} entries before this one found no room"


@_kind(INFO)
def stopped(*, sequence: int, rejected: int, partial_frames: int) -> str:
    """The server has stopped in good order; `partial_frames` were left unfinished."""
    return (
        f"stopped after sequence {sequence}; {counted(rejected)} did not count, "
        f"{counted(partial_frames, 'frame was', 'frames were')} unfinished"
    )
