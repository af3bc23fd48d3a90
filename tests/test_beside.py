"""The benchmark of tools beside a server: it runs them, and sees when they fail."""

from pathlib import Path

import pytest

from alphabet.trial.children import ChildError
from bench.case import Value
from bench.parts import beside
from bench.plan import Plan


def measured(place: Path, name: str) -> dict[str, Value]:
    """Measure one flood in small; give its figures by what they are of."""
    plan = Plan(place, runs=1, seconds=0.1, votes=20_000, round_trips=1)
    with beside.cases(plan) as cases:
        [case] = [each for each in cases if each.title == name]
        directory = place / "run"
        directory.mkdir()
        values = list(case.measure(directory))
    return {value.name.removeprefix(name).removeprefix(": "): value for value in values}


def test_the_tool_has_run(tmp_path: Path) -> None:
    """A tool has had the processor while the server was flooded."""
    found = measured(tmp_path, beside.rate_name("verify"))
    assert found[""].number > 0
    assert found["processor that it had"].number > 0
    assert found["the log's file"].number > 5


def test_a_flood_alone_has_no_tool(tmp_path: Path) -> None:
    """What all others are compared with has nobody beside it."""
    assert set(measured(tmp_path, beside.ALONE)) == {
        "",
        "longest wait for outputs",
        "the log's file",
    }


def test_a_tool_that_fails_ends_everything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A figure beside a tool that did not work is not taken."""
    monkeypatch.setattr(beside, "TOOLS", {"state": ("recovery.cli", "no-such")})
    with pytest.raises(ChildError, match="no-such ended with exit code 2"):
        measured(tmp_path, beside.rate_name("state"))


def test_every_tool_is_a_case(tmp_path: Path) -> None:
    """Each tool is measured in each run, after the server alone."""
    plan = Plan(tmp_path, runs=1, seconds=0.1, votes=20_000, round_trips=1)
    with beside.cases(plan) as cases:
        names = [case.title for case in cases]
    assert names == [beside.ALONE, *map(beside.rate_name, beside.TOOLS)]
    assert set(beside.GOALS_FOR) <= beside.TOOLS.keys()
