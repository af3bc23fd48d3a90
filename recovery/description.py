"""What is said of a log, and of what verify found in it: fields and lines.

Knows no application. Values in, text out, but for the reads that a description needs.
"""

from collections.abc import Iterator
from typing import Any

from log.log import Log
from recovery.moment import format_instant
from recovery.snapshot_directory import SnapshotDirectory
from recovery.verify import Finding


def describe_log(
    log: Log, snapshots: SnapshotDirectory, data_bytes: int
) -> dict[str, Any]:
    """Say what a log is, how far it goes, and who has read how much of it.

    `data_bytes` is its file's size. Raises DamagedError.
    """
    meta = log.meta
    first = next(log.read(log.base.sequence), None)
    lost = sum(count for _, count in meta.gaps)
    events = log.tail.sequence - log.base.sequence - lost
    return {
        "id": meta.log_id,
        "parent": meta.parent_id or None,
        "application": meta.application,
        "record_schema": meta.record_schema,
        "pipelines": list(meta.pipelines),
        "format_version": meta.format_version,
        "engine": meta.engine,
        "base": log.base.sequence,
        "last_sequence": log.tail.sequence,
        "events": events,
        "first_time": None if first is None else format_instant(first.time_ns),
        "last_time": format_instant(log.tail.time_ns) if log.tail.time_ns else None,
        "bytes": data_bytes,
        "bytes_per_event": round(data_bytes / events, 2) if events else None,
        "snapshots": snapshots.sequences(),
        "sinks": {
            name: {"sequence": cursor.sequence, "output_bytes": cursor.offset}
            for name, cursor in sorted(log.cursors().items())
        },
        "streams": {
            str(stream_id): {
                "name": point.name.decode("utf-8", "replace"),
                "message_id": point.message_id,
            }
            for stream_id, (_, point) in sorted(log.points().items())
        },
        "gaps": [
            {"first": first, "last": first + count - 1} for first, count in meta.gaps
        ],
    }


def field_lines(name: str, value: object) -> Iterator[str]:
    """Write a field of a description as lines."""
    name = name.replace("_", " ")
    if isinstance(value, dict) and value:
        yield f"{name}:"
        for key, inner in value.items():
            words = ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in inner.items())
            yield f"  {key}: {words}"
        return
    if isinstance(value, list):
        value = ", ".join(map(_item, value))
    yield f"{name}: {'none' if value in (None, '', {}) else value}"


def _item(value: object) -> str:
    if isinstance(value, dict):
        return f"{value['first']} to {value['last']}"
    return str(value)


def finding_line(finding: Finding) -> str:
    """Write a finding as a line: how bad, where, what."""
    span = "" if finding.first is None else f" at {finding.first}"
    if finding.last not in {None, finding.first}:
        span = f" at {finding.first} to {finding.last}"
    return f"{finding.severity}: {finding.place}{span}: {finding.reason}"
