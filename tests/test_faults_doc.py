"""docs/FAULTS.md and the tests of faults name each other."""

import re

import pytest

from tests.process import ROOT

TEXT = (ROOT / "docs" / "FAULTS.md").read_text()
FAULT_FILES = ("test_page_damage.py", "test_crash.py")
"""Every test in these shows what a fault does, but for those that guard the tests."""
GUARDS = {"test_it_is_whole", "test_it_serves_a_sound_file"}
LINES = TEXT.splitlines()
ROWS = [
    line
    for line, next_line in zip(LINES, [*LINES[1:], ""], strict=True)
    if line.startswith("| ") and not next_line.startswith("|---")
]


def defined_in(name: str) -> set[str]:
    """Give the names of the tests in one file."""
    source = (ROOT / "tests" / name).read_text()
    return set(re.findall(r"^ *def (test_\w+)\(", source, re.MULTILINE))


def names_in(text: str) -> set[str]:
    """Give the names of the tests in a text, alone or as nodes."""
    return set(re.findall(r"`(?:tests/[\w.:]*::)?(test_\w+)`", text))


@pytest.mark.parametrize("row", ROWS)
def test_every_fault_names_its_test(row: str) -> None:
    """Each row's last column names tests that exist, in the file it says, if any."""
    column = row.rsplit("|", 2)[1]
    named = names_in(column)
    files = re.findall(r"`tests/(\w+\.py)", column)
    files = files or [each.name for each in (ROOT / "tests").glob("test_*.py")]
    assert named
    assert named <= set().union(*map(defined_in, files))


@pytest.mark.parametrize("name", FAULT_FILES)
def test_every_fault_test_is_named(name: str) -> None:
    """No test of a fault is missing from the document."""
    named = names_in(TEXT)
    assert defined_in(name) - GUARDS - named == set()
