"""The API that applications are written against, of its own docstrings.

Read from the source with griffe: nothing is imported.
"""

from pathlib import Path

import griffe

from docs.site.prose import plain

MODULE = "alphabet.wallaroo"


def api_page(root: Path) -> str:
    """Write what is public in the checkout at `root`, in the order of the code."""
    module = griffe.load(
        MODULE,
        search_paths=[root],
        docstring_parser=griffe.Parser.google,
        allow_inspection=False,
    )
    assert isinstance(module, griffe.Module)  # noqa: S101 - it is one
    lines = [f"# {MODULE}", "", *_docstring(module)]
    for member in _public(module):
        if isinstance(member, griffe.Class):
            lines += _class(member)
        elif isinstance(member, griffe.Function):
            lines += _function(member, f"## {member.name}")
        elif member.docstring is not None:
            lines += [f"## {member.name}", "", *_code(_assignment(member))]
            lines += _docstring(member)
    return "\n".join(lines)


def _public(owner: griffe.Object) -> list[griffe.Object]:
    return [
        member
        for name, member in owner.members.items()
        if isinstance(member, griffe.Object) and not name.startswith("_")
    ]


def _class(shown: griffe.Class) -> list[str]:
    bases = ", ".join(map(str, shown.bases))
    lines = [f"## {shown.name}", ""]
    lines += _code(f"class {shown.name}({bases})" if bases else f"class {shown.name}")
    lines += _docstring(shown)
    members = _public(shown)
    fields = [each for each in members if isinstance(each, griffe.Attribute)]
    if fields:
        lines += _code("\n".join(f"{each.name}: {each.annotation}" for each in fields))
    for member in members:
        if isinstance(member, griffe.Function):
            lines += _function(member, f"### {shown.name}.{member.name}")
    return lines


def _function(shown: griffe.Function, heading: str) -> list[str]:
    return [
        heading,
        "",
        *_code(f"def {shown.signature()}"),
        *_docstring(shown),
    ]


def _assignment(shown: griffe.Object) -> str:
    value = shown.value if isinstance(shown, griffe.Attribute) else ""
    return f"{shown.name} = {value}"


def _code(text: str) -> list[str]:
    return ["```python", text, "```", ""]


def _docstring(shown: griffe.Object) -> list[str]:
    """Write a docstring's sections: text as it is, the others as lists."""
    lines = []
    for section in shown.docstring.parsed if shown.docstring else []:
        if section.kind is griffe.DocstringSectionKind.text:
            for paragraph in str(section.value).split("\n\n"):
                lines += [plain(" ".join(paragraph.split())), ""]
            continue
        lines += [f"**{section.kind.value.capitalize()}:**", ""]
        for item in section.value:
            name = getattr(item, "name", "") or str(getattr(item, "annotation", ""))
            text = plain(" ".join(item.description.split()))
            lines.append(f"- `{name}`: {text}" if name else f"- {text}")
        lines.append("")
    return lines
