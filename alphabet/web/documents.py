"""What is answered, as JSON: totals, the standing, problems.

A letter is one character, that of its byte in Latin-1. Totals in `/votes` are exact
integers; in events they are strings, for JavaScript's numbers end at 2**53.

Pure. Problems are those of RFC 9457.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import attrs

from alphabet.standing import Standing, unready_reasons
from alphabet.totals_board import Totals

Document = dict[str, Any]


def votes_document(totals: Totals) -> Document:
    """Tell all totals, in the order of letters."""
    return {"sequence": totals.sequence, "totals": by_letter(totals.totals)}


def letter_document(totals: Totals, letter: bytes) -> Document:
    """Tell one letter's total; it must have one."""
    return {
        "sequence": totals.sequence,
        "letter": letter.decode("latin-1"),
        "total": totals.totals[letter],
    }


def by_letter(totals: Mapping[bytes, int]) -> dict[str, int]:
    """Name letters as characters."""
    return {letter.decode("latin-1"): total for letter, total in totals.items()}


def as_strings(totals: Mapping[bytes, int]) -> dict[str, str]:
    """Write totals for JavaScript."""
    return {name: str(total) for name, total in by_letter(totals).items()}


def status_document(standing: Standing) -> Document:
    """Tell the whole standing, and whether it is ready."""
    document = attrs.asdict(standing)
    return {**document, "unready": unready_reasons(standing)}


def ready_document(reasons: Sequence[str]) -> Document:
    """Tell whether votes should be sent here, and why not."""
    return {"status": "unready" if reasons else "ready", "reasons": list(reasons)}


def problem(status: int, title: str, detail: str) -> Document:
    """Tell what was wrong with a request, or is with the server."""
    return {"type": "about:blank", "title": title, "status": status, "detail": detail}
