"""What is counted so far of all servers: totals, and which sequences they are of.

Invariants:

- a sequence of a server is counted once: a segment that has it again is refused, and
  nothing of its batch is added;
- an event of a log is counted once, whatever the server's name, and whatever the log
  was called before salvage or compact: as far back as segments tell;
- totals are whole numbers of any size here, and one that no output can carry is an
  error;
- the same segments give the same totals, in whatever order and batches they come.

`AddVotes` adds, so a sum over `counted` is what it would compute of all votes in any
order. Pure.
"""

import functools
import json
import zlib
from collections.abc import Iterable, Mapping
from decimal import Decimal
from typing import Any, Self

import attrs

from alphabet.application import TOTAL_MAX
from alphabet.printing import format_letter
from alphabet.spark import ranges
from alphabet.spark.folded import Folded
from alphabet.spark.ranges import OverlapError, Ranges
from recovery.exporting.segment import Label

FORMAT_VERSION = 2
_FORMAT_WITHOUT_LOGS = 1
"""It knew a server's log by its newest segment, and is read as far as that goes."""

Totals = Mapping[str, int]
"""Letters, each as the Latin-1 character of its byte, and their totals."""


class RefusedError(ValueError):
    """A segment, or a total, that must not be counted; says which, why, what to do."""


class AccountFormatError(ValueError):
    """Bytes that are no account."""


@attrs.frozen
class Row:
    """What Spark says of one letter in one file; sequences are inclusive."""

    file: str
    server: str | None
    letter: str | None
    counted: Decimal | None
    first_sequence: int | None
    last_sequence: int | None
    events: int
    time_us: int | None


@attrs.frozen
class Addition:
    """What one segment adds."""

    file: str
    server: str
    label: Label
    totals: Totals

    @classmethod
    def of(cls, file: str, rows: Iterable[Row], label: Label) -> Self:
        """Check a file's rows against what it says of itself; raises RefusedError."""
        rows = list(rows)
        servers = {row.server for row in rows}
        server = next(iter(servers))
        totals = {
            row.letter: int(row.counted)
            for row in rows
            if row.letter is not None and row.counted is not None
        }
        if len(servers) != 1 or server is None or len(totals) != len(rows):
            raise RefusedError(
                f"{file} has not the rows of a segment of one server; take it out of "
                "the directory"
            )
        found = cls(file, server, label, totals)
        span = (
            min(row.first_sequence or 0 for row in rows),
            max(row.last_sequence or 0 for row in rows),
        )
        told = (found.held[0][0], found.held[-1][1]) if found.held else None
        events = sum(row.events for row in rows)
        if span != told or events != ranges.count(found.held):
            raise RefusedError(
                f"{file} says that it holds events {label.first_sequence} to "
                f"{label.last_sequence}, and has {events} from {span[0]} to {span[1]}"
            )
        return found

    @property
    def held(self) -> Ranges:
        """The sequences that it has rows for."""
        label = self.label
        lost = tuple((first, first + count - 1) for first, count in label.gaps)
        return ranges.without((label.first_sequence, label.last_sequence), lost)


@attrs.frozen
class CountedLog:
    """The sequences that are counted of one log, and the log that it was made from."""

    held: Ranges
    parent_id: str | None


@attrs.frozen
class ServerAccount:
    """What is counted of one server.

    `newest` is the file with its last event and `label` what that says of itself: its
    checksum vouches for all that the server's log had before it. `logs` has each log,
    by id, that the server's segments were of: salvage and compact give it another.
    """

    totals: Totals
    newest: str
    label: Label
    logs: Mapping[str, CountedLog]

    @functools.cached_property
    def held(self) -> Ranges:
        """The sequences that are counted, of whichever log."""
        return ranges.union(*(log.held for log in self.logs.values()))

    @property
    def missing(self) -> Ranges:
        """The sequences, from 1 to the last, that no segment had."""
        return ranges.missing(self.held)


@attrs.frozen
class Account:
    """What is counted after `batch`, -1 before the first; `files` are that batch's.

    `folded` is where an application's states stand, None where sums are all there is.
    """

    segments: str
    batch: int = -1
    files: tuple[str, ...] = ()
    servers: Mapping[str, ServerAccount] = attrs.Factory(dict)
    folded: Folded | None = None

    @functools.cached_property
    def totals(self) -> Totals:
        """The global totals."""
        found: dict[str, int] = {}
        for server in self.servers.values():
            for letter, total in server.totals.items():
                found[letter] = found.get(letter, 0) + total
        return dict(sorted(found.items()))

    @property
    def missing(self) -> dict[str, Ranges]:
        """What is missing, by server; the totals are complete if nothing is."""
        return {
            name: server.missing
            for name, server in sorted(self.servers.items())
            if server.missing
        }

    def add(
        self,
        batch: int,
        additions: Iterable[Addition],
        total_max: int | None = TOTAL_MAX,
    ) -> "Account":
        """Count a batch's segments; raises RefusedError, and then counts none.

        `total_max` is the largest total, inclusive; None: totals are no outputs, and
        any will do. What is `folded` then is for the caller to say.
        """
        servers = dict(self.servers)
        ordered = sorted(additions, key=lambda each: each.label.first_sequence)
        for each in ordered:
            _check_log(servers, each)
            servers[each.server] = _counted(servers.get(each.server), each)
        files = tuple(sorted(each.file for each in ordered))
        account = Account(self.segments, batch, files, servers)
        for letter, total in account.totals.items():
            if total_max is not None and total > total_max:
                raise RefusedError(
                    f"the total of {format_letter(letter.encode('latin-1'))} would be "
                    f"{total}, and an output carries {total_max} at most: nothing of "
                    "this batch is counted"
                )
        return account

    def encode(self) -> bytes:
        """Write it as JSON with a checksum (CRC-32)."""
        fields = attrs.asdict(self) | {"format_version": FORMAT_VERSION}
        del fields["folded"]
        if self.folded is not None:
            fields["folded"] = self.folded.fields()
        text = json.dumps(fields, sort_keys=True)
        return json.dumps(
            {"checksum": zlib.crc32(text.encode()), "account": text}
        ).encode()

    @classmethod
    def decode(cls, data: bytes) -> Self:
        """Read what `encode` gives; raises AccountFormatError for anything else."""
        try:
            outer = json.loads(data)
            fields: dict[str, Any] = json.loads(outer["account"])
            checksum = zlib.crc32(outer["account"].encode())
            is_whole = checksum == outer["checksum"]
            version = fields.pop("format_version")
            if is_whole and version in {FORMAT_VERSION, _FORMAT_WITHOUT_LOGS}:
                servers = fields.pop("servers").items()
                folded = fields.pop("folded", None)
                return cls(
                    folded=None if folded is None else Folded.of_fields(folded),
                    files=tuple(fields.pop("files")),
                    servers={name: _server_of(**server) for name, server in servers},
                    **fields,
                )
        except (AttributeError, KeyError, TypeError, ValueError) as error:
            raise AccountFormatError("it is no account") from error
        if not is_whole:
            raise AccountFormatError("its checksum is not that of its contents")
        raise AccountFormatError(
            f"its format is version {version}, not {FORMAT_VERSION}"
        )


def _check_log(servers: Mapping[str, ServerAccount], new: Addition) -> None:
    """Raise RefusedError if another server counts events of the same log.

    What was made of it by salvage or compact is the same log here, and so is what it
    was made from.
    """
    told = [
        (log_id, log.parent_id)
        for server in servers.values()
        for log_id, log in server.logs.items()
    ]
    told.append((new.label.log_id, new.label.parent_id))
    parents = {log_id: parent_id for log_id, parent_id in told if parent_id is not None}
    origin = _origin(parents, new.label.log_id)
    for name, server in servers.items():
        for log_id, log in server.logs.items() if name != new.server else ():
            shared = ranges.first_shared(log.held, new.held)
            if shared is not None and _origin(parents, log_id) == origin:
                raise RefusedError(_say_shared(new, name, log_id, log, shared))


def _origin(parents: Mapping[str, str], log_id: str) -> str:
    """Give the log that a log comes from in the end, as far as parents are known."""
    seen: set[str] = set()
    while log_id in parents and log_id not in seen:
        seen.add(log_id)
        log_id = parents[log_id]
    return log_id


def _say_shared(
    new: Addition, name: str, log_id: str, log: CountedLog, shared: ranges.Range
) -> str:
    """Say why a segment's events are those of another server's log, and what to do."""
    first, last = shared
    begin = (
        f"{new.file}: events {first} to {last} of log {log_id} are counted already, as "
        f"server {name!r}, and this says {new.server!r}"
    )
    if log_id == new.label.log_id:
        return (
            f"{begin}: a log has one name, also once it was restored from a backup. "
            "Take the file away"
        )
    return (
        f"{begin}, of log {new.label.log_id}: they are one log, before and after "
        "salvage or compact. Take the file away, and export that log to a new "
        f"directory with --after {log.held[-1][1]}"
    )


def _counted(before: ServerAccount | None, new: Addition) -> ServerAccount:
    """Count a segment of a server; raises RefusedError."""
    label = new.label
    logs = dict(before.logs) if before else {}
    held: Ranges = before.held if before else ()
    log = logs.get(label.log_id, CountedLog((), None))
    for each in new.held:
        try:
            held = ranges.add(held, each)
        except OverlapError as error:
            raise RefusedError(
                f"{new.file}: events {error.first} to {error.last} of server "
                f"{new.server!r} are counted already, from another file: was the "
                "server restored from an old backup, or is its name used twice? Take "
                "the file away; a second server of this name needs one of its own"
            ) from error
    totals = dict(before.totals) if before else {}
    for letter, counted in new.totals.items():
        totals[letter] = totals.get(letter, 0) + counted
    logs[label.log_id] = CountedLog(
        ranges.union(log.held, new.held), label.parent_id or log.parent_id
    )
    if before and before.label.last_sequence > label.last_sequence:
        return ServerAccount(totals, before.newest, before.label, logs)
    return ServerAccount(totals, new.file, label, logs)


def _server_of(
    totals: dict[str, int],
    newest: str,
    label: dict[str, Any],
    logs: Mapping[str, dict[str, Any]] | None = None,
    held: list[list[int]] | None = None,
) -> ServerAccount:
    told = Label.decode(json.dumps(label))
    if logs is None:
        logs = {told.log_id: {"held": held, "parent_id": told.parent_id}}
    counted = {
        log_id: CountedLog(
            tuple((first, last) for first, last in log["held"]), log["parent_id"]
        )
        for log_id, log in logs.items()
    }
    return ServerAccount(totals, newest, told, counted)


def format_missing(missing: Mapping[str, Ranges]) -> list[str]:
    """Say in a line each which server lacks what, its first few ranges by number."""
    return [
        f"incomplete: server {name} lacks "
        + ", ".join(
            f"{first} to {last}" if first < last else str(first)
            for first, last in lacked[:_RANGES_SHOWN]
        )
        + (f" … ({ranges.count(lacked)} events)" if lacked[_RANGES_SHOWN:] else "")
        for name, lacked in missing.items()
    ]


_RANGES_SHOWN = 3
