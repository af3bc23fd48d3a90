"""`python -m bench`: it measures what it says, and notices a server that is wrong."""

import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.figure import Figure, format_number, percentile, table
from bench.load import Load
from bench.measures import check_outputs
from tests.process import finish
from tests.votes import outputs

SMALL = ("--votes", 3000, "--load-votes", 3000, "--round-trips", 20)


@pytest.mark.slow
def test_every_figure_is_measured(tmp_path: Path) -> None:
    """A small run prints every row, and the restarts replay all or nothing."""
    report = tmp_path / "report.md"
    done = finish("bench", *SMALL, "--output", report)
    assert done.code == 0, done.stderr
    rows = [line for line in done.stdout.splitlines() if line.startswith("| ")]
    assert [row.split(" | ")[-2] for row in rows[1:]] == [
        *("votes/s", "bytes/vote", "MiB", "MiB"),
        *("ms",) * 4,
        *("s", "s"),
    ]
    assert "with a snapshot at its end, 0 events replayed" in rows[-2]
    assert "without any snapshot, 3,000 events replayed" in rows[-1]
    assert "command: `python -m bench --votes 3000" in done.stdout
    assert report.read_text() == done.stdout


class TestLoad:
    """The votes, and what must come of them."""

    def test_expected_outputs_are_the_references(self) -> None:
        """The outputs that a flood is checked against are the running totals."""
        load = Load(500, seed=2, repeat=2)
        votes = [
            (letter, n) for _, letter, n in struct.iter_unpack(">IsI", load.frames())
        ]
        assert load.outputs() == outputs(votes * 2)

    def test_a_wrong_output_is_seen(self) -> None:
        """One output that differs ends the measurement and is named."""
        expected = Load(10).outputs()
        check_outputs(bytearray(expected), expected)
        wrong = bytearray(expected)
        wrong[13 * 4 + 12] ^= 1
        with pytest.raises(RuntimeError, match="output 5 is not"):
            check_outputs(wrong, expected)


class TestFigure:
    """What a run's numbers become."""

    def test_a_row_has_median_and_spread(self) -> None:
        """A figure shows its median, its lowest and its highest value."""
        figure = Figure("speed", "votes/s", [30.0, 10.0, 20.0])
        assert (
            table([figure]).splitlines()[-1] == "| speed | 20 | 10 | 30 | votes/s | 3 |"
        )

    @given(st.lists(st.floats(0, 1e9), min_size=1), st.integers(1, 100))
    def test_a_percentile_is_a_sample(self, samples: list[float], percent: int) -> None:
        """At least so many percent are at or below it, and fewer below."""
        found = percentile(samples, percent)
        below = sum(sample < found for sample in samples)
        at_most = sum(sample <= found for sample in samples)
        assert found in samples
        assert 100 * below < percent * len(samples) <= 100 * at_most

    @pytest.mark.parametrize(
        ("number", "text"), [(1234567.8, "1,234,568"), (0.18591, "0.1859"), (3, "3")]
    )
    def test_numbers_are_short(self, number: float, text: str) -> None:
        """A number has no more digits than it means."""
        assert format_number(number) == text
