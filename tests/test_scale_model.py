"""The model of many servers: its bounds, its growth, and that its tables are true."""

import argparse
import shutil
import tempfile
from pathlib import Path

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphabet.trial.figure import Figure
from bench.parts import servers
from bench.report import Report
from bench.scale_model import (
    ASSUMED,
    RESULTS,
    SUMMING,
    Growth,
    Parameter,
    Parameters,
    check,
    grow,
    main,
    on_one_machine,
    read_medians,
    read_parameters,
)
from tests.documents import DOCUMENTS

positive = st.floats(1e-3, 1e9)
parameters = st.builds(
    Parameters,
    **{
        field.name: st.builds(Parameter, positive, st.just("u"), st.just("assumed"))
        for field in attrs.fields(Parameters)
    },
)
counts = st.integers(1, 1000)
SCALING = next(each for each in DOCUMENTS if each.name == "SCALING.md").read_text()


@given(parameters, counts, positive)
def test_no_stage_is_faster_than_it_is(
    known: Parameters, count: int, cores: float
) -> None:
    """What is summed passes none of the stages' rates, and meets the slowest's."""
    found = grow(known, count, cores)
    stages = [
        count * known.alone.value,
        count * known.export.value,
        cores * known.sums.value,
    ]
    assert found.summed == pytest.approx(min(stages))
    assert found.counted == pytest.approx(stages[0])
    assert grow(known, count, found.cores).summed == pytest.approx(min(stages[:2]))


@given(parameters, counts, st.integers(1, 9))
def test_what_grows_with_servers_and_what_does_not(
    known: Parameters, count: int, copies: int
) -> None:
    """Rates, cores and network are one server's times their number; delay is not."""
    one, many = grow(known, 1, copies=copies), grow(known, count, copies=copies)
    for name in ("counted", "summed", "cores", "network_bytes"):
        assert getattr(many, name) == pytest.approx(count * getattr(one, name))
    delays = known.lone.value, known.segment_age.value, known.batch.value
    assert one.delay_seconds == many.delay_seconds == pytest.approx(sum(delays))
    room = copies * known.log.value + known.parquet.value
    assert one.stored_bytes == many.stored_bytes == pytest.approx(room)


@given(parameters, counts, st.floats(0.01, 64))
def test_one_machine_has_so_many_cores(
    known: Parameters, count: int, cores: float
) -> None:
    """Servers on one machine use no more processor time than there is."""
    rate = on_one_machine(known, count, cores)
    used_cores = rate * known.cost.value / 1e9
    assert used_cores <= cores * (1 + 1e-9)
    assert rate <= count * known.alone.value
    assert used_cores == pytest.approx(cores) or rate == count * known.alone.value


@given(parameters, st.floats(0.01, 64), st.lists(positive, min_size=3, max_size=3))
def test_an_error_is_that_of_the_prediction(
    known: Parameters, cores: float, measured: list[float]
) -> None:
    """A prediction is its error more than what was measured, for each count."""
    names = map(servers.rate_name, servers.COUNTS)
    medians = {servers.CORES: cores, **dict(zip(names, measured, strict=True))}
    for one, count in zip(check(known, medians), servers.COUNTS, strict=True):
        assert one.servers == count
        assert one.predicted == on_one_machine(known, count, cores)
        assert one.measured == medians[servers.rate_name(count)]
        excess = one.predicted - one.measured
        assert one.error == pytest.approx(excess / one.measured, rel=1e-9, abs=1e-9)


def test_the_document_has_what_the_command_prints(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Every table in SCALING.md is what the measurements give now."""
    main([])
    printed = [line for line in capsys.readouterr().out.splitlines() if line]
    assert len(printed) > len(attrs.fields(Parameters)) + 6 + 3
    assert [line for line in printed if line not in SCALING.splitlines()] == []
    copy = tmp_path / "SCALING.md"
    copy.write_text(SCALING)
    main(["--write", str(copy)])
    assert copy.read_text() == SCALING
    main(["--write", str(copy), "--servers", "3"])
    assert copy.read_text() != SCALING


def test_the_exporter_is_as_fast_as_it_was_measured() -> None:
    """What REPLAY.md says of the speed of `export --follow` is what was measured."""
    guide = next(each for each in DOCUMENTS if each.name == "REPLAY.md").read_text()
    section = guide.partition("### --follow")[2].partition("\n## ")[0]
    told = " ".join(section.partition("**How fast, how large.**")[2].split())
    medians = read_medians(RESULTS, "spark")
    for size in ("large", "small"):
        rate = medians[f"export, {size} segments"] / 1e6
        assert f" {rate:.3g} million votes/s" in told
        room = medians[f"room in Parquet, {size} segments"]
        assert f" {room:.3g} bytes per vote" in told
    segments = medians["segments written, small segments"]
    assert f" {segments:.3g} a second" in told


@given(
    st.dictionaries(st.sampled_from(sorted(SUMMING)), positive),
    st.dictionaries(st.sampled_from(sorted(ASSUMED)), positive),
)
def test_what_is_measured_is_not_assumed(
    measured: dict[str, float], given_: dict[str, float]
) -> None:
    """An option wins over a measurement, and that over what is assumed."""
    options = argparse.Namespace(**dict.fromkeys(ASSUMED) | given_)
    figures = [Figure(SUMMING[name], "u", [n]) for name, n in measured.items()]
    with tempfile.TemporaryDirectory() as name:
        results = Path(name)
        for part in ("servers", "disk", "latency"):
            shutil.copy(RESULTS / f"{part}.json", results)
        if figures:
            text = Report("spark", [], "", figures, {}).to_json()
            (results / "spark.json").write_text(text)
        known = read_parameters(results, options)
    for name, guess in ASSUMED.items():
        found: Parameter = getattr(known, name)
        if name in given_:
            expected = given_[name], "option"
        elif name in measured:
            expected = measured[name], "docs/benchmarks/spark.json"
        else:
            expected = guess.value, "assumed"
        assert (found.value, found.source, found.unit) == (*expected, guess.unit)
    assert known.alone.source == "docs/benchmarks/servers.json"


def test_columns_are_those_of_a_growth() -> None:
    """A row has a cell for each thing that is known of a growth, in its order."""
    [head] = [line for line in SCALING.splitlines() if line.startswith("| servers |")]
    assert head.count("|") - 1 == len(attrs.fields(Growth))


def test_no_server_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    """There is no model of no server."""
    with pytest.raises(SystemExit):
        main(["--servers", "0"])
    assert "1 server at least" in capsys.readouterr().err
