"""docs/FAULTS.md and the tests of faults name each other."""

import re

import pytest

from tests.process import ROOT

TEXT = (ROOT / "docs" / "FAULTS.md").read_text()
FAULT_FILES = (
    "test_crash.py",
    "test_descriptors.py",
    "test_failing_calls.py",
    "test_floods.py",
    "test_frozen.py",
    "test_little_memory.py",
    "test_missing_files.py",
    "test_modes.py",
    "test_page_damage.py",
    "test_power_loss.py",
    "test_rough_starts.py",
    "test_small_file_system.py",
    "test_wall_clock.py",
)
"""Every test in these shows what a fault does, but for those that guard the tests."""
GUARDS = {"test_it_is_whole", "test_it_serves_a_sound_file"}
TEST = re.compile(r"`(?:tests/(\w+\.py)::)?(?:Test\w+::)?(test_\w+)`")
"""A test as the document names it: by its node, or by its own name alone."""
ROWS = re.findall(r"^\| .*\|$(?!\n\|-)", TEXT, re.MULTILINE)
"""All rows of all tables but their heads."""


def defined_in(name: str) -> set[str]:
    """Give the names of the tests in one file."""
    source = (ROOT / "tests" / name).read_text()
    return set(re.findall(r"^ *def (test_\w+)\(", source, re.MULTILINE))


@pytest.mark.parametrize("row", ROWS)
def test_every_fault_names_its_test(row: str) -> None:
    """Each row's last column names tests that exist, in the file it says, if any."""
    column = row.rsplit("|", 2)[1]
    found = TEST.findall(column)
    [*files] = re.findall(r"`tests/(\w+\.py)`", column)
    files = files or [each.name for each in (ROOT / "tests").glob("test_*.py")]
    assert found
    for file, name in found:
        assert name in set().union(*map(defined_in, [file] if file else files))


@pytest.mark.parametrize("name", FAULT_FILES)
def test_every_fault_test_is_named(name: str) -> None:
    """No test of a fault is missing from the document."""
    named = {test for _, test in TEST.findall(TEXT)}
    assert defined_in(name) - GUARDS - named == set()
