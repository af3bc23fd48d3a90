"""All kinds of entries, against their documents and against those who say them."""

import ast
import json
import re

import pytest

from alphabet.journal import entries
from alphabet.journal.entries import ERROR, INFO, KINDS, WARNING, Kind
from tests.process import ROOT

DOCUMENT = (ROOT / "docs" / "JOURNAL.md").read_text(encoding="utf-8")
KEYS = {"timestamp", "level", "kind", "event", "count"}
BOUNDLESS = {"sequence", "peer", "path", "connections", "transaction", "offset"}
"""Facts of which there may be any number of values."""
every_kind = pytest.mark.parametrize("kind", KINDS.values(), ids=lambda kind: kind.name)


def row(kind: Kind) -> str:
    """Write a kind as the table has it."""
    facts = ", ".join(f"`{each}`" for each in kind.facts) or "-"
    same = "-"
    if kind.same is not None:
        same = ", ".join(f"`{each}`" for each in kind.same) or "all"
    return f"| `{kind.name}` | {kind.level} | {kind.meaning} | {facts} | {same} |"


def test_the_table_has_every_kind() -> None:
    """The document's table is that of the code: each kind, in order, and no other."""
    table = DOCUMENT.partition("## Kinds")[2]
    rows = [line for line in table.splitlines() if line.startswith("| `")]
    assert rows == [row(kind) for kind in KINDS.values()]


def test_the_example_is_an_entry() -> None:
    """The line that the document shows is one that the journal writes."""
    [line] = re.findall(r"^\{.*\}$", DOCUMENT, re.MULTILINE)
    shown = json.loads(line)
    entry = entries.sink_unreachable(
        **{name: shown[name] for name in KINDS[shown["kind"]].facts}
    )
    assert (entry.text, entry.kind.level) == (shown["event"], shown["level"])
    assert {*shown} == KEYS | {*entry.kind.facts}


@every_kind
def test_a_kind_is_in_order(kind: Kind) -> None:
    """No fact hides a key that all have; what is the same is bounded, and a fact."""
    assert kind.level in {INFO, WARNING, ERROR}
    assert KEYS.isdisjoint(kind.facts)
    assert set(kind.same or ()) <= set(kind.facts)
    assert BOUNDLESS.isdisjoint(kind.same or ())
    assert "|" not in kind.meaning


def test_every_kind_is_said_somewhere() -> None:
    """There is no kind that nobody says; rejects are said by `reject_noted`."""
    mentioned = {
        node.attr
        for path in (ROOT / "alphabet").rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Attribute)
    }
    unsaid = {name for name in KINDS if name.replace("-", "_") not in mentioned}
    assert unsaid == {"vote-rejected", "event-failed"}
