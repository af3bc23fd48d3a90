"""A look at a running server: its standing, read without a lock.

Every number that is read is one that a thread of the server replaces whole. The edge:
files' sizes and clocks.
"""

import contextlib
import os
import time
import uuid
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import attrs

from alphabet.connector.sink import ConnectorSink
from alphabet.measures import Histogram
from alphabet.network.address import Address
from alphabet.server import Server, Sink
from alphabet.sink.console_sink import ConsoleSink
from alphabet.source.reception import Reception
from alphabet.standing import (
    AWAY,
    CATCHING_UP,
    CONNECTED,
    STOPPED,
    HistogramStanding,
    RestartStanding,
    SinkStanding,
    SourceStanding,
    Standing,
)
from alphabet.totals_board import Totals, has_totals
from log.errors import DamagedError, DirectoryError
from recovery.snapshot_directory import SnapshotDirectory

DATA_FILE = "data.mdb"
"""Where LMDB has the log, in its directory."""


@attrs.define(eq=False)
class Look:
    """Reads one server; belongs to the thread that serves the page.

    `boot_id` is another in each run.
    """

    server: Server
    recovery_seconds: float = 0.0
    boot_id: str = attrs.field(factory=lambda: uuid.uuid4().hex, init=False)
    _started: float = attrs.field(factory=time.monotonic, init=False)

    @property
    def data_dir(self) -> Path:
        """The server's data directory."""
        return self.server.opened.directory.path

    def totals(self) -> Totals | None:
        """Give the newest durable totals, and ask that they be kept up."""
        self.server.board.look(time.monotonic())
        return self.server.board.newest(self.server.engine.durable.sequence)

    @property
    def has_totals(self) -> bool:
        """Say whether the application has totals, though none may be copied yet."""
        return has_totals(self.server.engine.machine)

    @property
    def log_id(self) -> str:
        """The log's id."""
        return self.server.opened.log.meta.log_id

    @property
    def sequence(self) -> int:
        """The last event that is durable."""
        return self.server.engine.durable.sequence

    def standing(self) -> Standing:
        """Give the standing at this moment."""
        server, measures = self.server, self.server.measures
        sequence = self.sequence
        return Standing(
            boot_id=self.boot_id,
            version=_version(),
            application=server.engine.machine.application,
            uptime_seconds=time.monotonic() - self._started,
            sequence=sequence,
            events=measures.events,
            record_bytes=measures.record_bytes,
            outputs=measures.outputs,
            output_bytes=measures.output_bytes,
            blocks=measures.blocks,
            rejects=dict(server.digest.counts),
            commits=_frozen(measures.commits),
            round_trips=_frozen(measures.round_trips),
            inbox_bytes=server.inbox.bytes,
            inbox_bytes_max=server.inbox.bytes_max,
            sources=tuple(map(_source_standing, server.receptions)),
            sinks=tuple(sink_standing(sink, sequence) for sink in server.sinks),
            restart=self._restart(sequence),
            log_file_bytes=_file_bytes(server.opened.directory.log_path / DATA_FILE),
            disk_free_bytes=_free_bytes(server.opened.directory.log_path),
            resident_bytes=_resident_bytes(),
            is_stopping=server.stopping.is_set(),
            disk_full=measures.disk_full,
        )

    def _restart(self, sequence: int) -> RestartStanding:
        newest, age_seconds = _newest_snapshot(self.server.opened.snapshots)
        recovered = self.server.opened.recovered
        base = self.server.opened.log.base.sequence
        return RestartStanding(
            newest,
            age_seconds,
            max(sequence - max(newest or 0, base), 0),
            self.recovery_seconds,
            None if recovered is None else recovered.replayed,
        )


def _source_standing(reception: Reception) -> SourceStanding:
    addresses = []
    for listener in reception.listeners:
        # One that has stopped is nowhere any more.
        with contextlib.suppress(OSError):
            host, port = listener.socket.getsockname()[:2]
            addresses.append(str(Address(host, port)))
    limits = reception.limits
    return SourceStanding(
        reception.label,
        tuple(addresses),
        len(reception.connections()),
        int(min(limits.connections_max, limits.connections_room)),
        reception.received_bytes,
    )


def sink_standing(sink: Sink, sequence: int) -> SinkStanding:
    """Tell of one sink, when `sequence` is the last durable event."""
    if isinstance(sink, ConsoleSink):
        cursor, address = None, None
    else:
        cursor = sink.record if isinstance(sink, ConnectorSink) else sink.cursor
        address = str(sink.address)
    fault = sink.fault
    return SinkStanding(
        sink.name,
        address,
        _sink_state(sink),
        None if cursor is None else cursor.sequence,
        None if cursor is None else cursor.offset,
        None if cursor is None else max(sequence - cursor.sequence, 0),
        None if fault is None else str(fault),
        fault.sequence if isinstance(fault, DamagedError) else None,
    )


def _sink_state(sink: Sink) -> str:
    if sink.fault is not None:
        return STOPPED
    if not sink.is_connected:
        return AWAY
    return CONNECTED if sink.subscription.is_live else CATCHING_UP


def _frozen(histogram: Histogram) -> HistogramStanding:
    return HistogramStanding(tuple(histogram.counts), histogram.sum_seconds)


def _newest_snapshot(snapshots: SnapshotDirectory) -> tuple[int | None, float | None]:
    """Give the newest snapshot's sequence and age in seconds, None for none."""
    with contextlib.suppress(OSError, DirectoryError):
        for sequence in snapshots.sequences():
            written = snapshots.file(sequence).stat().st_mtime
            return sequence, max(time.time() - written, 0.0)
    return None, None


def _file_bytes(file: Path) -> int:
    with contextlib.suppress(OSError):
        return file.stat().st_size
    return 0


def _free_bytes(place: Path) -> int:
    """Give the room that the server may use on the disk of `place`."""
    with contextlib.suppress(OSError):
        disk = os.statvfs(place)
        return disk.f_bavail * disk.f_frsize
    return 0


def _resident_bytes() -> int:
    """Give what the process has in memory; 0 where the system does not say."""
    with contextlib.suppress(OSError, ValueError):
        pages = int(Path("/proc/self/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")
    return 0


def _version() -> str:
    with contextlib.suppress(PackageNotFoundError):
        return version("alphabet-votes")
    return "unknown"
