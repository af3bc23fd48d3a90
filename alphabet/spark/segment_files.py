"""The directory that segments come into, as the driver sees it.

Segments are `DIR/ANYTHING/FIRST-LAST-LOG_ID.parquet`, at any depth; names that begin
with `.` or `_` are not yet, or no, data. Nothing is written here. The edge: files.
"""

import os
import urllib.parse
from collections.abc import Iterator
from pathlib import Path

import attrs

from alphabet.spark.account import RefusedError, ServerAccount
from recovery.exporting.parquet_file import LABEL_KEY
from recovery.exporting.segment import Label, LabelError, Segment

_HIDDEN = (".", "_")
COLUMNS = ["server", "sequence", "letter", "votes", "counted", "time"]


@attrs.define
class SegmentFiles:
    """The segments of a directory; labels that were read once are kept."""

    path: Path
    _labels: dict[str, tuple[tuple[int, int, int], Label]] = attrs.Factory(dict)

    def files(self) -> Iterator[str]:
        """Give each segment's path below the directory; refuse whatever else is there.

        Raises RefusedError for a foreign name, OSError for what cannot be read.
        """
        for directory, directories, names in os.walk(self.path, onerror=_raise):
            directories[:] = [d for d in directories if not d.startswith(_HIDDEN)]
            for name in names:
                if name.startswith(_HIDDEN):
                    continue
                file = os.path.relpath(Path(directory, name), self.path)
                if Segment.parse(name) is None:
                    raise RefusedError(
                        f"{self.path} holds {file}, which is no segment: take it out"
                    )
                yield file

    def file_of(self, uri: str) -> str:
        """Give the path below the directory of what Spark names by a URI."""
        path = urllib.parse.unquote(urllib.parse.urlsplit(uri).path)
        return os.path.relpath(path, self.path)

    def label(self, file: str) -> Label:
        """Read what a segment says of itself.

        Raises RefusedError for one that is damaged, foreign or renamed,
        FileNotFoundError for one that is gone.
        """
        status = (self.path / file).stat()
        signature = (status.st_ino, status.st_size, status.st_mtime_ns)
        known = self._labels.get(file)
        if known is None or known[0] != signature:
            known = (signature, self._read(file))
            self._labels[file] = known
        return known[1]

    def _read(self, file: str) -> Label:
        import pyarrow.parquet as pq

        try:
            metadata = pq.read_metadata(self.path / file)
            label = Label.decode((metadata.metadata or {}).get(LABEL_KEY.encode(), b""))
        except LabelError as error:
            raise _foreign(file, str(error)) from error
        except FileNotFoundError:
            raise
        except (OSError, ValueError) as error:
            raise _foreign(file, "it is no whole Parquet file") from error
        names = metadata.schema.to_arrow_schema().names
        if not set(COLUMNS) <= set(names):
            raise _foreign(file, f"its columns are {', '.join(names)}")
        named = Segment.parse(Path(file).name)
        told = Segment(label.first_sequence, label.last_sequence, label.log_id)
        if named != told:
            raise _foreign(file, f"it was renamed: it is {told.file}")
        return label

    def check_newest(self, name: str, server: ServerAccount) -> str | None:
        """Look whether a server's newest counted segment is what it was.

        Gives a line where it is gone; raises RefusedError if it is another.
        """
        try:
            label = self.label(server.newest)
        except FileNotFoundError:
            return (
                f"server {name}: {server.newest}, the last that was counted, is gone; "
                "was it restored from an old backup?"
            )
        if label != server.label:
            raise RefusedError(
                f"{server.newest} was counted with other contents: server {name!r} was "
                "restored from an old backup, and went on otherwise. Bring back the "
                "file that was counted, or count all anew with another --checkpoint"
            )
        return None

    def forget(self, keep: set[str]) -> None:
        """Let go of all labels but these."""
        self._labels = {k: v for k, v in self._labels.items() if k in keep}


def _raise(error: OSError) -> None:
    raise error


def _foreign(file: str, reason: str) -> RefusedError:
    return RefusedError(f"{file}: {reason}; take it out of the directory")
