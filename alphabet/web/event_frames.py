"""Server-sent events as bytes, and what changed between two totals.

See https://html.spec.whatwg.org/multipage/server-sent-events.html. Pure.
"""

import json
from collections.abc import Mapping

RETRY_MILLISECONDS = 1000
"""How soon a browser connects again."""
HEARTBEAT = b":\n\n"
"""A comment: it shows both ends that the other is there."""


def event_frame(name: str, document: object, sequence: int | None = None) -> bytes:
    """Write one event; its id is the sequence that it is about."""
    id_line = "" if sequence is None else f"id: {sequence}\n"
    data = json.dumps(document, separators=(",", ":"))
    return f"event: {name}\n{id_line}data: {data}\n\n".encode()


def retry_frame() -> bytes:
    """Tell a browser how soon to connect again."""
    return f"retry: {RETRY_MILLISECONDS}\n\n".encode()


def changed(
    before: Mapping[bytes, int], after: Mapping[bytes, int]
) -> dict[bytes, int]:
    """Give the totals that are new or other than before; totals never go away."""
    return {
        letter: total for letter, total in after.items() if before.get(letter) != total
    }
