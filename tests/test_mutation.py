"""Each mutant is the source with one mistake, where a mistake can matter."""

import re

import pytest

from tests.mutants import TESTS
from tests.mutation import mutants
from tests.process import ROOT


class TestMutants:
    """What mistakes are made."""

    @pytest.mark.parametrize(
        ("source", "changed"),
        [
            ("x = a < b", ["x = a <= b"]),
            ("x = a == b", ["x = a != b"]),
            ("x = a and b", ["x = a or b"]),
            ("x = a + b", ["x = a - b"]),
            ("x = not a", ["x = a"]),
            ("x = 7", ["x = 8"]),
            ("x = True", ["x = False"]),
            ("f()", ["pass"]),
            ("x += y", ["pass"]),
            ("raise x", ["pass"]),
            ("if x:\n    y", ["if not x:\n    y", "if x:\n    pass"]),
            ("def f():\n    return x", ["def f():\n    return None"]),
            ("for x in y:\n    continue", ["for x in y:\n    break"]),
        ],
    )
    def test_each_mistake_is_made(self, source: str, changed: list[str]) -> None:
        """One thing is changed, and all else stays."""
        assert [mutant.source for mutant in mutants(source)] == changed

    @pytest.mark.parametrize(
        "source", ['"""Words."""', "x = 'word'", "x: int", "@f(1)\ndef g(x: 1): ..."]
    )
    def test_words_are_left_alone(self, source: str) -> None:
        """Strings, annotations and decorators are not changed."""
        assert list(mutants(source)) == []

    def test_lines_are_told(self) -> None:
        """A mutant says where it differs, and how."""
        [mutant] = mutants("x = y\nz = x is y")
        assert (mutant.line, mutant.change) == (2, "x is y -> x is not y")

    def test_what_changes_nothing_is_no_mutant(self) -> None:
        """Nothing is left out where None is returned already."""
        assert list(mutants("def f():\n    return None")) == []

    def test_every_module_has_an_entry(self) -> None:
        """Each module of the log and of recovery is named, and has its row."""
        modules = {
            str(file.relative_to(ROOT))
            for package in ("log", "recovery")
            for file in (ROOT / package).rglob("*.py")
            if file.name != "__init__.py"
        }
        assert set(TESTS) == modules
        text = (ROOT / "docs" / "MUTANTS.md").read_text()
        rows = re.findall(r"^\| `(\S+)` \|", text, re.MULTILINE)
        assert rows == sorted(modules)

    def test_what_was_tried_is_accounted_for(self) -> None:
        """Of each module's mutants all that were tried are killed, or explained."""
        text = (ROOT / "docs" / "MUTANTS.md").read_text()
        table, _, words = text.partition("## Explained")
        rows = re.findall(
            r"^\| `(\S+)` \| (\d+) \| (all|\d+) \| (?:\d+ )?\| (\d+) \| (\d+) \|$",
            table,
            re.MULTILINE,
        )
        assert len(rows) == len(TESTS)
        for module, made, tried, killed, explained in rows:
            count = made if tried == "all" else tried
            assert int(killed) + int(explained) == int(count), module
            assert (f"`{module}`" in words) == (int(explained) > 0), module

    @pytest.mark.parametrize("module", TESTS)
    def test_a_module_has_its_tests(self, module: str) -> None:
        """Every module named is there, and so is each of its tests."""
        assert (ROOT / module).exists()
        for name in TESTS[module].split():
            assert (ROOT / "tests" / f"test_{name}.py").exists()
