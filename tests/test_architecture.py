"""The code's shape: which module may import what, and how long one may grow.

Read from the source with `ast`, so that an import counts wherever it stands: in a
function, under `TYPE_CHECKING` or at the top. What is said here in data is said in
words in ARCHITECTURE.md.
"""

import ast
import functools
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# A package and those of ours that it may import. Arrows point one way.
ARROWS = {
    "log": {"log"},
    "recovery": {"log", "recovery"},
    "alphabet": {"log", "recovery", "alphabet"},
}
# The recovery tool's command line looks up: it alone knows the application it serves.
LOOKS_UP = ("recovery/cli.py", "recovery/commands/")

LOG_LIBRARIES = {"attrs", "lmdb", "numpy"}
IMPORTS_LMDB = {"log/lmdb_store.py"}

# Modules that compute and nothing else, and what they must not know.
PURE = {
    "alphabet/application.py",
    "alphabet/cause.py",
    "alphabet/connector/client.py",
    "alphabet/connector/frame_buffer.py",
    "alphabet/connector/frames.py",
    "alphabet/connector/inbound.py",
    "alphabet/connector/message_run.py",
    "alphabet/connector/message_span.py",
    "alphabet/connector/outbound.py",
    "alphabet/connector/phases.py",
    "alphabet/connector/receiver.py",
    "alphabet/connector/streams.py",
    "alphabet/connector/transaction_log.py",
    "alphabet/connector/wire_fields.py",
    "alphabet/engine.py",
    "alphabet/framing.py",
    "alphabet/group.py",
    "alphabet/intake.py",
    "alphabet/journal/entries.py",
    "alphabet/journal/paced_lines.py",
    "alphabet/journal/repeats.py",
    "alphabet/measures.py",
    "alphabet/pipeline/address_arguments.py",
    "alphabet/pipeline/batch.py",
    "alphabet/pipeline/components.py",
    "alphabet/pipeline/decorators.py",
    "alphabet/pipeline/ending.py",
    "alphabet/pipeline/kafka.py",
    "alphabet/pipeline/machine.py",
    "alphabet/pipeline/output_framing.py",
    "alphabet/pipeline/partition.py",
    "alphabet/pipeline/routing.py",
    "alphabet/pipeline/state_text.py",
    "alphabet/pipeline/steps.py",
    "alphabet/pipeline/topology.py",
    "alphabet/records/event_fields.py",
    "alphabet/records/record_frames.py",
    "alphabet/records/wire_import.py",
    "alphabet/sending/spread.py",
    "alphabet/service/pulse.py",
    "alphabet/sink/delivery.py",
    "alphabet/source/partial_frames.py",
    "alphabet/spark/account.py",
    "alphabet/spark/fold.py",
    "alphabet/spark/folded.py",
    "alphabet/spark/newest.py",
    "alphabet/spark/ranges.py",
    "alphabet/standing.py",
    "alphabet/totals_board.py",
    "alphabet/trial/figure.py",
    "alphabet/trial/output_check.py",
    "alphabet/trial/vote_load.py",
    "alphabet/wallaroo.py",
    "alphabet/web/documents.py",
    "alphabet/web/event_frames.py",
    "alphabet/web/gate.py",
    "alphabet/web/history.py",
    "log/block.py",
    "log/lmdb_check.py",
    "log/lmdb_file.py",
    "log/lmdb_page.py",
    "log/lmdb_tree.py",
    "log/log.py",
    "log/memory_store.py",
    "log/row.py",
    "recovery/counted.py",
    "recovery/event_text.py",
    "recovery/exporting/segment.py",
    "recovery/moment.py",
    "recovery/picture/label_places.py",
    "recovery/picture/sampling.py",
    "recovery/picture/scales.py",
    "recovery/picture/theme.py",
    "recovery/snapshot.py",
}
IMPURE = {
    "asyncio",
    "lmdb",
    "os",
    "select",
    "selectors",
    "socket",
    "subprocess",
    "threading",
    "time",
}

MODULE_LINES_MAX = 400
FUNCTION_LINES_MAX = 60


@functools.cache
def modules() -> dict[str, ast.Module]:
    """Return every module of the three packages by its path in the checkout."""
    return {
        path.relative_to(ROOT).as_posix(): ast.parse(path.read_text(encoding="utf-8"))
        for package in ARROWS
        for path in sorted((ROOT / package).rglob("*.py"))
    }


def imports(name: str, tree: ast.AST) -> Iterator[str]:
    """Yield the dotted names that the module at path `name` imports.

    `from a import b` yields `a.b`, for `b` may be a module. Relative imports are
    resolved against the module's own package.
    """
    package = Path(name).parent.parts
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            above = package[: len(package) - node.level + 1] if node.level else ()
            source = ".".join([*above, *filter(None, [node.module])])
            yield from (f"{source}.{alias.name}" for alias in node.names)


def top_levels(name: str, tree: ast.AST) -> set[str]:
    """Return the top-level packages that the module at path `name` imports."""
    return {dotted.partition(".")[0] for dotted in imports(name, tree)}


def reached(name: str, trees: dict[str, ast.Module]) -> set[str]:
    """Return the module at path `name` and all of ours that its imports lead to.

    A package's `__init__` is its public face and is not followed: a module that
    wants to be pure names the module it needs.
    """
    seen: set[str] = set()
    waiting = {name}
    while waiting:
        seen |= waiting
        paths = {
            "/".join(parts) + ".py"
            for each in waiting
            for dotted in imports(each, trees[each])
            for parts in (dotted.split("."), dotted.split(".")[:-1])
        }
        waiting = (paths & trees.keys()) - seen
    return seen


def above(dotted: str) -> list[str]:
    """Return the dotted names that contain this one, the innermost first."""
    parts = dotted.split(".")
    return [".".join(parts[:count]) for count in range(len(parts) - 1, 0, -1)]


def place(name: str) -> str:
    """Return what the module at path `name` belongs to: a package within one of ours.

    One that lies in `log`, `recovery` or `alphabet` itself stands for itself.
    """
    dotted = name.removesuffix(".py").replace("/", ".")
    return dotted if dotted.count(".") == 1 else above(dotted)[0]


def circle(leads_to: dict[str, set[str]]) -> set[str]:
    """Return those that lead to each other in a circle, or to such."""
    left = dict(leads_to)
    while ends := {each for each, others in left.items() if not others & left.keys()}:
        left = {each: others for each, others in left.items() if each not in ends}
    return set(left)


class TestImports:
    """What the reader of imports sees."""

    @pytest.mark.parametrize(
        ("source", "names"),
        [
            ("import socket, os.path", {"socket", "os.path"}),
            ("from log import block", {"log.block"}),
            ("from . import row", {"log.row"}),
            ("from .row import Row", {"log.row.Row"}),
            ("def f():\n    import time", {"time"}),
            ("if TYPE_CHECKING:\n    import lmdb as db", {"lmdb"}),
        ],
    )
    def test_every_form_is_seen(self, source: str, names: set[str]) -> None:
        """Each form of the import statement is found and made absolute."""
        assert set(imports("log/block.py", ast.parse(source))) == names

    def test_imports_are_followed(self) -> None:
        """A module that is imported by one that is imported is reached."""
        trees = {
            "log/a.py": ast.parse("from log import b"),
            "log/b.py": ast.parse("from log.c import C"),
            "log/c.py": ast.parse("import log.a"),
            "log/d.py": ast.parse("import log.a"),
        }
        assert reached("log/a.py", trees) == {"log/a.py", "log/b.py", "log/c.py"}

    @pytest.mark.parametrize(
        ("name", "expected"),
        [
            ("log/block.py", "log.block"),
            ("recovery/commands/info.py", "recovery.commands"),
            ("alphabet/web/__init__.py", "alphabet.web"),
        ],
    )
    def test_a_module_has_a_place(self, name: str, expected: str) -> None:
        """A module within a package of a package is of that, others are themselves."""
        assert place(name) == expected

    def test_circles_are_seen(self) -> None:
        """Those that lead back to themselves are found, and those that lead there."""
        leads_to = {"a": {"b"}, "b": {"c"}, "c": {"b"}, "d": {"e"}, "e": {"none"}}
        assert circle(leads_to) == {"a", "b", "c"}


class TestArrows:
    """Who may import whom."""

    def test_arrows_point_one_way(self) -> None:
        """A package imports itself and those below it, and tests by none."""
        ours = {*ARROWS, "bench", "examples", "tests"}
        wrong = {
            name: upward
            for name, tree in modules().items()
            if (
                upward := (top_levels(name, tree) & ours)
                - ARROWS[name.partition("/")[0]]
                - ({"alphabet"} if name.startswith(LOOKS_UP) else set())
            )
        }
        assert wrong == {}

    def test_no_package_leads_back_to_itself(self) -> None:
        """No imports lead out of a package within one of ours, and into it again."""
        places = {place(name) for name in modules()}
        leads_to = {
            each: {
                other
                for name, tree in modules().items()
                if place(name) == each
                for dotted in imports(name, tree)
                for other in places & {dotted, *above(dotted)}
            }
            - {each}
            for each in places
        }
        assert circle(leads_to) == set()

    def test_log_needs_few_libraries(self) -> None:
        """The log imports three libraries at most, and the standard one."""
        allowed = LOG_LIBRARIES | ARROWS["log"] | sys.stdlib_module_names
        wrong = {
            name: others
            for name, tree in modules().items()
            if name.startswith("log/") and (others := top_levels(name, tree) - allowed)
        }
        assert wrong == {}

    def test_one_module_knows_lmdb(self) -> None:
        """LMDB is imported by one module alone."""
        found = {
            name for name, tree in modules().items() if "lmdb" in top_levels(name, tree)
        }
        assert found == IMPORTS_LMDB

    def test_libraries_are_those_declared(self) -> None:
        """A library is imported if and only if pyproject.toml asks for it."""
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        extras = project["optional-dependencies"]
        declared = [
            *project["dependencies"],
            *(
                each
                for extra in extras.keys() - {"audit", "bench", "dev", "docs", "fuzz"}
                for each in extras[extra]
            ),
        ]
        libraries = {
            each.partition(">")[0].replace("-", "_").lower() for each in declared
        }
        imported = {
            top for name, tree in modules().items() for top in top_levels(name, tree)
        }
        # The tutorial's code says `wallaroo` and is given ours.
        known = ARROWS.keys() | sys.stdlib_module_names | {"wallaroo"}
        assert imported - known == libraries


class TestPurity:
    """The modules that compute know no socket, clock, file or thread."""

    def test_pure_modules_exist(self) -> None:
        """Each name in the list of pure modules is a module."""
        assert modules().keys() >= PURE

    def test_pure_modules_stay_pure(self) -> None:
        """Nothing that a pure module leads to imports anything impure."""
        trees = modules()
        wrong = {
            (name, each): impure
            for name in PURE & trees.keys()
            for each in reached(name, trees)
            if (impure := top_levels(each, trees[each]) & IMPURE)
        }
        assert wrong == {}


class TestSize:
    """What a newcomer can take in at once."""

    def test_modules_are_short(self) -> None:
        """No module has more lines than the limit."""
        lengths = {
            name: len((ROOT / name).read_text(encoding="utf-8").splitlines())
            for name in modules()
        }
        assert {n: k for n, k in lengths.items() if k > MODULE_LINES_MAX} == {}

    def test_functions_are_short(self) -> None:
        """No function has more lines than the limit, its docstring included."""
        lengths = {
            f"{name}:{node.name}": (node.end_lineno or 0) - node.lineno + 1
            for name, tree in modules().items()
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        }
        assert {n: k for n, k in lengths.items() if k > FUNCTION_LINES_MAX} == {}
