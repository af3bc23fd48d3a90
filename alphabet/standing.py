"""How a server stands, as values: what the page, `/status` and `/metrics` tell.

Made anew for each look, and never changed. Totals are apart: see `totals_board`.

Pure.
"""

from collections.abc import Mapping

import attrs

CONNECTED = "connected"
CATCHING_UP = "catching up"
AWAY = "away"
STOPPED = "stopped"


@attrs.frozen
class SinkStanding:
    """One sink: its state, its cursor, and how many events it has not got.

    `cause` says why it has stopped, `damaged_sequence` where the log is damaged, if
    that is why. `sequence` and `delivered_bytes` are None for one without a cursor.
    """

    name: str
    address: str | None
    state: str
    sequence: int | None
    delivered_bytes: int | None
    lag_events: int | None
    cause: str | None = None
    damaged_sequence: int | None = None


@attrs.frozen
class SourceStanding:
    """All sources of one kind, which is the option that asks for them.

    `addresses` are where it listens, HOST:PORT each; none once it has stopped.
    `connections_max` is the option's bound, or fewer where files are too few for it.
    """

    kind: str
    addresses: tuple[str, ...]
    connections: int
    connections_max: int
    received_bytes: int


@attrs.frozen
class HistogramStanding:
    """Counts for each of `measures.SECONDS_BOUNDS`, and one for what took longer."""

    counts: tuple[int, ...]
    sum_seconds: float


@attrs.frozen
class RestartStanding:
    """What a restart would replay, and what the last one did.

    `snapshot_sequence` and `snapshot_age_seconds` are None where there is no snapshot;
    `recovery_replayed` is None where there was no log.
    """

    snapshot_sequence: int | None
    snapshot_age_seconds: float | None
    replay_events: int
    recovery_seconds: float
    recovery_replayed: int | None


@attrs.frozen
class Standing:
    """The whole of it, after durable event `sequence`. Counters are of this run."""

    boot_id: str
    version: str
    application: str
    uptime_seconds: float
    sequence: int
    events: int
    record_bytes: int
    outputs: int
    output_bytes: int
    blocks: int
    rejects: Mapping[str, int]
    commits: HistogramStanding
    round_trips: HistogramStanding
    inbox_bytes: int
    inbox_bytes_max: int
    sources: tuple[SourceStanding, ...]
    sinks: tuple[SinkStanding, ...]
    restart: RestartStanding
    log_file_bytes: int
    disk_free_bytes: int
    resident_bytes: int
    is_stopping: bool = False
    disk_full: str | None = None


def unready_reasons(standing: Standing) -> list[str]:
    """Say why no more votes should be sent here; nothing where all is well."""
    reasons = ["the server is stopping"] if standing.is_stopping else []
    if standing.disk_full is not None:
        reasons.append(standing.disk_full)
    reasons += [
        f"sink {sink.name} has stopped: {sink.cause}"
        for sink in standing.sinks
        if sink.state == STOPPED
    ]
    return reasons
