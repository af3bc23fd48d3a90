"""The standing as Prometheus has it: names `alphabet_…`, base units, one collector.

Names follow https://prometheus.io/docs/practices/naming/. Each scrape makes them anew
from one standing, so they fit together. `process_…` are the client library's own.
"""

from collections.abc import Callable, Iterator

import attrs
from prometheus_client import (
    PROCESS_COLLECTOR,
    CollectorRegistry,
    generate_latest,
)
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.registry import Collector

from alphabet.measures import SECONDS_BOUNDS
from alphabet.standing import (
    AWAY,
    CATCHING_UP,
    CONNECTED,
    STOPPED,
    HistogramStanding,
    SinkStanding,
    Standing,
    unready_reasons,
)

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
REJECT_REASONS = ("compute", "decode", "encode", "frame")
"""Counted from zero on, so that a first reject is an increase too."""


@attrs.define(eq=False)
class StandingCollector(Collector):
    """Gives the metrics of the standing that `look` gives."""

    look: Callable[[], Standing]

    def collect(self) -> Iterator[Metric]:
        """Give every family."""
        standing = self.look()
        yield from _counters(standing)
        yield from _gauges(standing)
        yield from _restart(standing)
        yield from _ends(standing)
        for name, help_, values in (
            ("alphabet_commit_seconds", "How long a commit took", standing.commits),
            (
                "alphabet_round_trip_seconds",
                "From a batch's first bytes to its release",
                standing.round_trips,
            ),
        ):
            yield _histogram(name, help_, values)


def exposition(look: Callable[[], Standing]) -> bytes:
    """Write all metrics as text."""
    registry = CollectorRegistry()
    registry.register(StandingCollector(look))
    registry.register(PROCESS_COLLECTOR)
    return generate_latest(registry)


def _counters(standing: Standing) -> Iterator[Metric]:
    for name, help_, value in (
        ("alphabet_events", "Events made durable by this run", standing.events),
        ("alphabet_record_bytes", "Bytes of their records", standing.record_bytes),
        ("alphabet_outputs", "Outputs released to sinks", standing.outputs),
        ("alphabet_output_bytes", "Bytes of these outputs", standing.output_bytes),
        ("alphabet_blocks", "Blocks written to the log", standing.blocks),
    ):
        yield CounterMetricFamily(name, help_, value)
    rejects = CounterMetricFamily(
        "alphabet_rejects", "Votes refused, and events that failed", labels=["reason"]
    )
    counts = {**dict.fromkeys(REJECT_REASONS, 0), **standing.rejects}
    for reason, count in sorted(counts.items()):
        rejects.add_metric([reason], count)
    yield rejects


def _gauges(standing: Standing) -> Iterator[Metric]:
    is_ready = not unready_reasons(standing)
    for name, help_, value in (
        ("alphabet_sequence", "The last durable event", standing.sequence),
        ("alphabet_inbox_bytes", "What waits to be counted", standing.inbox_bytes),
        ("alphabet_inbox_max_bytes", "What may wait", standing.inbox_bytes_max),
        ("alphabet_log_file_bytes", "The log's file", standing.log_file_bytes),
        (
            "alphabet_disk_free_bytes",
            "Room on the log's disk",
            standing.disk_free_bytes,
        ),
        ("alphabet_resident_bytes", "The process's memory", standing.resident_bytes),
        ("alphabet_uptime_seconds", "Since it was ready", standing.uptime_seconds),
        ("alphabet_ready", "1 if votes should be sent here, else 0", is_ready),
        ("alphabet_disk_full", "1 while the disk is full", bool(standing.disk_full)),
    ):
        yield GaugeMetricFamily(name, help_, float(value))
    info = GaugeMetricFamily(
        "alphabet_build_info", "Always 1", labels=["version", "application"]
    )
    info.add_metric([standing.version, standing.application], 1)
    yield info


def _restart(standing: Standing) -> Iterator[Metric]:
    restart = standing.restart
    for name, help_, value in (
        (
            "alphabet_snapshot_sequence",
            "The newest snapshot",
            restart.snapshot_sequence,
        ),
        (
            "alphabet_snapshot_age_seconds",
            "Since it was written",
            restart.snapshot_age_seconds,
        ),
        (
            "alphabet_restart_replay_events",
            "Events that a restart would replay",
            restart.replay_events,
        ),
        (
            "alphabet_recovery_seconds",
            "How long the start took to rebuild the state",
            restart.recovery_seconds,
        ),
        (
            "alphabet_recovery_replayed_events",
            "Events that the start has replayed",
            restart.recovery_replayed,
        ),
    ):
        if value is not None:
            yield GaugeMetricFamily(name, help_, value)


def _ends(standing: Standing) -> Iterator[Metric]:
    connections = GaugeMetricFamily(
        "alphabet_connections", "Senders that are connected", labels=["source"]
    )
    bound = GaugeMetricFamily(
        "alphabet_connections_max", "Senders that may be connected", labels=["source"]
    )
    received = CounterMetricFamily(
        "alphabet_received_bytes", "Bytes read from senders", labels=["source"]
    )
    for source in standing.sources:
        connections.add_metric([source.kind], source.connections)
        bound.add_metric([source.kind], source.connections_max)
        received.add_metric([source.kind], source.received_bytes)
    yield connections
    yield bound
    yield received
    yield from _sinks(standing.sinks)


def _sinks(sinks: tuple[SinkStanding, ...]) -> Iterator[Metric]:
    state = GaugeMetricFamily(
        "alphabet_sink_state", "1 for the state it is in", labels=["sink", "state"]
    )
    lag = GaugeMetricFamily(
        "alphabet_sink_lag_events", "Events that a sink has not got", labels=["sink"]
    )
    sequence = GaugeMetricFamily(
        "alphabet_sink_sequence", "A sink's cursor", labels=["sink"]
    )
    delivered = GaugeMetricFamily(
        "alphabet_sink_delivered_bytes",
        "Bytes of outputs that a sink's cursor stands for",
        labels=["sink"],
    )
    for sink in sinks:
        for each in (CONNECTED, CATCHING_UP, AWAY, STOPPED):
            state.add_metric([sink.name, each], sink.state == each)
        if sink.lag_events is not None and sink.sequence is not None:
            lag.add_metric([sink.name], sink.lag_events)
            sequence.add_metric([sink.name], sink.sequence)
        if sink.delivered_bytes is not None:
            delivered.add_metric([sink.name], sink.delivered_bytes)
    yield state
    yield lag
    yield sequence
    yield delivered


def _histogram(name: str, help_: str, values: HistogramStanding) -> Metric:
    total = 0
    buckets = []
    bounds = [*map(str, SECONDS_BOUNDS), "+Inf"]
    for bound, count in zip(bounds, values.counts, strict=True):
        total += count
        buckets.append((bound, float(total)))
    return HistogramMetricFamily(name, help_, buckets, values.sum_seconds)
