"""The segment that a continuous export writes next, on the disk before any of it is.

`TO/.next` has its label as JSON. So a range that a reader may have seen, and that a
power cut took away again, is written anew under the very same name. It is replaced by
the next one's, whole and flushed, and never removed. The edge: one file.
"""

import os
from pathlib import Path

from log import failpoint
from log.directory import flush_directory
from recovery.exporting.segment import Label

INTENT = ".next"
"""Readers of Parquet pass over what begins with a dot."""


def read_intent(directory: Path) -> Label | None:
    """Read what was to be written last; None where nothing ever was.

    Raises LabelError for what is no label, OSError.
    """
    try:
        text = (directory / INTENT).read_bytes()
    except FileNotFoundError:
        return None
    return Label.decode(text)


def write_intent(directory: Path, label: Label) -> None:
    """Say what is written next, durable on return; raises OSError."""
    temporary = directory / f"{INTENT}.tmp"
    with temporary.open("w", encoding="utf-8") as stream:
        stream.write(label.encode())
        stream.flush()
        os.fsync(stream.fileno())
    failpoint.reach("intent.before_rename")
    temporary.rename(directory / INTENT)
    failpoint.reach("intent.after_rename")
    flush_directory(directory)
    failpoint.reach("intent.after_flush")
