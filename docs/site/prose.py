"""Plain text of the code as Markdown that shows just that."""

import re

_SPECIAL = re.compile(r"[\\*_\[\]>#|`]")


def plain(text: str) -> str:
    """Write a line of text so that it is shown as it is; what is in backticks is code.

    An odd backtick stands for itself.
    """
    parts = text.split("`")
    if len(parts) % 2 == 0:
        parts[-2:] = ["`".join(parts[-2:])]
    return "".join(
        f"`{part}`" if number % 2 and part else _escaped(part)
        for number, part in enumerate(parts)
    )


def _escaped(text: str) -> str:
    entities = text.replace("&", "&amp;").replace("<", "&lt;")
    return _SPECIAL.sub(r"\\\g<0>", entities)
