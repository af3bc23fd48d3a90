"""Tables in Markdown: made from cells, and put into a document that has older ones.

Pure. A table is known by its head, the whole first line.
"""

import re
from collections.abc import Sequence

_NUMERIC = "0123456789+-"


def write_table(head: str, rows: Sequence[Sequence[str]]) -> str:
    """Write a table of a row at least; its first says which columns are numbers."""
    aligned = ["--:" if cell[:1] in _NUMERIC else "---" for cell in rows[0]]
    lines = [head, f"|{'|'.join(aligned)}|"]
    lines += [f"| {' | '.join(cells)} |" for cells in rows]
    return "\n".join(lines)


def renew(document: str, tables: Sequence[str]) -> str:
    """Put each table in the place of the one with its head.

    Raises:
        ValueError: A document has no such table, or more than one.
    """
    for table in tables:
        head = table.partition("\n")[0]
        old = re.compile(rf"^{re.escape(head)}(?:\n\|.*)*$", re.MULTILINE)
        found = [each.span() for each in old.finditer(document)]
        if len(found) != 1:
            raise ValueError(f"there must be one table that begins with {head}")
        [(start, end)] = found
        document = document[:start] + table + document[end:]
    return document
