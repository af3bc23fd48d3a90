"""A file sink as it should be, in a few lines of memory."""

from collections.abc import Sequence

import attrs

from alphabet.connector.transaction_log import Transaction


@attrs.define
class ModelSink:
    """Takes outputs by transactions; a crash comes to `take_back`."""

    committed: bytes = b""
    tail: bytes = b""
    prepared: Transaction | None = None
    last_committed: bytes | None = None

    @property
    def committed_bytes(self) -> int:
        """How much is final."""
        return len(self.committed)

    @property
    def end_bytes(self) -> int:
        """How much there is."""
        return len(self.committed + self.tail)

    def put(self, offset: int, payloads: Sequence[bytes | memoryview]) -> bool:
        """Append outputs, or compare them."""
        assert self.prepared is None
        assert offset <= self.end_bytes
        data = b"".join(payloads)
        there = (self.committed + self.tail)[offset:][: len(data)]
        self.tail += data[len(there) :]
        return data.startswith(there)

    def take_back(self) -> None:
        """Cut off what is not prepared."""
        if self.prepared is None:
            self.tail = b""

    def prepare(self, name: bytes) -> None:
        """Prepare the tail."""
        assert self.prepared is None
        self.prepared = Transaction(name, self.committed_bytes, self.end_bytes)

    def commit(self) -> None:
        """Make the tail final."""
        assert self.prepared is not None
        self.committed += self.tail
        self.last_committed = self.prepared.name
        self.prepared, self.tail = None, b""

    def abort(self) -> None:
        """Drop the tail."""
        assert self.prepared is not None
        self.prepared, self.tail = None, b""
