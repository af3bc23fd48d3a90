"""What `python -m bench spark` takes from Spark's command, and from /proc."""

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphabet.spark import command
from alphabet.spark.counting import Counted
from alphabet.trial.children import Children
from alphabet.trial.output_check import WrongOutputError
from bench.case import MissingPeerError
from bench.processes import processor_seconds
from bench.spark_totals import Batch, SparkTotals, read_batches, require_spark

BATCHES = st.lists(st.tuples(st.integers(1, 10**12), st.integers(0, 10**6)))


@given(BATCHES)
def test_batches_are_read_as_they_are_told(batches: list[tuple[int, int]]) -> None:
    """Of each line about votes their number and age are taken, of others nothing."""
    told: list[str] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(command, "_say", told.append)
        patch.setattr(time, "time", lambda: 1e9)
        for number, (votes, tenths) in enumerate(batches):
            newest_us = 10**15 - tenths * 100_000
            counted = Counted(3, votes, newest_us)
            command._tell(number, counted, 0.5)  # noqa: SLF001 - what it says
            command._tell(number, Counted(0, 0, None), 0.5)  # noqa: SLF001
    text = "".join(f"{line}\n" for line in told)
    expected = [Batch(votes, tenths / 10) for votes, tenths in batches]
    assert read_batches(text) == expected
    rest = "batch 7: 1 segments, 5 votes in 0.50 s (10/s), newest 1"
    assert read_batches(text + rest) == expected


def test_where_spark_cannot_run_it_is_missing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without pyspark, or without Java, one line says what is missing."""
    monkeypatch.setenv("JAVA_HOME", str(tmp_path))
    with pytest.raises(MissingPeerError, match=r"^(pyspark is|Spark needs Java)"):
        require_spark()


def test_a_server_with_other_totals_is_noticed(tmp_path: Path) -> None:
    """The newest totals must be each server's own, and have each server."""
    (tmp_path / "totals").mkdir()
    for batch, total in enumerate((1, 2)):
        text = json.dumps({"servers": {"eu": {"a": total}}})
        (tmp_path / "totals" / f"{batch:020}.json").write_text(text)
    with Children(tmp_path) as children:
        child = children.start("nothing", "this")
    spark = SparkTotals(tmp_path, tmp_path, child)
    spark.check({"eu": {"a": 2}})
    for wrong in ({"eu": {"a": 1}}, {"us": {"a": 2}}, {"eu": {"a": 2}, "us": {}}):
        with pytest.raises(WrongOutputError, match="are not its own"):
            spark.check(wrong)


def test_processor_time_of_descendants_counts(tmp_path: Path) -> None:
    """What a process's child has used is in the process's number."""
    spin = "import time\nwhile time.process_time() < 0.2: pass\nprint('', flush=True)"
    script = (
        "import subprocess, sys\n"
        f"child = subprocess.Popen([sys.executable, '-c', {spin + '; input()'!r}],\n"
        "    stdin=subprocess.PIPE)\n"
        "child.wait()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdout=subprocess.PIPE, cwd=tmp_path
    )
    try:
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        own = sum(os.times()[:2])
        assert processor_seconds(process.pid) >= 0.15
        assert processor_seconds(os.getpid()) >= own + 0.15
    finally:
        process.kill()
        process.communicate()


def test_processes_that_end_meanwhile_are_no_trouble() -> None:
    """While children come and go, the time that was used never goes back by much."""
    process = subprocess.Popen(["/bin/sh", "-c", "while :; do (: | :); done"])
    try:
        looks = [processor_seconds(process.pid) for _ in range(500)]
    finally:
        process.kill()
        process.wait()
    assert 0 <= min(looks) <= looks[-1]
