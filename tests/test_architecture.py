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
    "alphabet/address_arguments.py",
    "alphabet/application.py",
    "alphabet/cause.py",
    "alphabet/components.py",
    "alphabet/counted.py",
    "alphabet/decorators.py",
    "alphabet/ending.py",
    "alphabet/kafka.py",
    "alphabet/output_framing.py",
    "alphabet/partition.py",
    "alphabet/routing.py",
    "alphabet/state_text.py",
    "alphabet/steps.py",
    "alphabet/topology.py",
    "alphabet/connector_client.py",
    "alphabet/connector_frames.py",
    "alphabet/connector_in.py",
    "alphabet/connector_out.py",
    "alphabet/message_run.py",
    "alphabet/streams.py",
    "alphabet/connector_phases.py",
    "alphabet/wire_fields.py",
    "alphabet/batch.py",
    "alphabet/group.py",
    "alphabet/intake.py",
    "alphabet/entries.py",
    "alphabet/paced_lines.py",
    "alphabet/partial_frames.py",
    "alphabet/repeats.py",
    "alphabet/pulse.py",
    "alphabet/connector_receiver.py",
    "alphabet/frame_buffer.py",
    "alphabet/transaction_log.py",
    "alphabet/delivery.py",
    "alphabet/event_fields.py",
    "alphabet/record_frames.py",
    "alphabet/wire_import.py",
    "alphabet/engine.py",
    "alphabet/figure.py",
    "alphabet/framing.py",
    "alphabet/machine.py",
    "alphabet/message_span.py",
    "alphabet/output_check.py",
    "alphabet/vote_load.py",
    "alphabet/measures.py",
    "alphabet/spread.py",
    "alphabet/standing.py",
    "alphabet/totals_board.py",
    "alphabet/wallaroo.py",
    "alphabet/spark/account.py",
    "alphabet/spark/fold.py",
    "alphabet/spark/folded.py",
    "alphabet/spark/newest.py",
    "alphabet/spark/ranges.py",
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
    "recovery/event_text.py",
    "recovery/label_places.py",
    "recovery/moment.py",
    "recovery/sampling.py",
    "recovery/scales.py",
    "recovery/segment.py",
    "recovery/snapshot.py",
    "recovery/theme.py",
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
