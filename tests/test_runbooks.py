"""What watches a server for others, Prometheus' rules and Grafana's dashboard.

They are held against what a real server tells, and checked by Prometheus' own promtool.
"""

import functools
import itertools
import json
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from tests.premises import Premises, premises
from tests.process import ROOT, SECONDS_MAX, free_port, submit, wait_until
from tests.votes import wire

RUNBOOKS = (ROOT / "docs" / "RUNBOOKS.md").read_text()
DEPLOY = ROOT / "docs" / "deploy"
RULES = DEPLOY / "prometheus" / "alerts.yml"
CASES = ROOT / "tests" / "alerts.yml"
SETUP = "Set them up"
VOTES = [(b"a", 3), (b"b", 4)]

_NO_METRICS = re.compile(r"\b(?:by|on|without|ignoring)\s*\([^)]*\)|\[[^]]*\]")
_SELECTOR = re.compile(r"\b([a-z_]\w*)\b(\{[^}]*\})?(?!\s*\()(?!\w)")
_MATCHER = re.compile(r'(\w+)(=~|=)"([^"]*)"')
OPERATORS = {"and", "or", "unless"}
ADDED = {"job", "instance"}
"""Labels that Prometheus adds to every metric."""


@attrs.frozen
class Selector:
    """A metric that an expression looks at, and the labels that it must have."""

    name: str
    labels: dict[str, str]


def selectors(expression: str) -> Iterator[Selector]:
    """Give what an expression of PromQL looks at."""
    for name, matchers in _SELECTOR.findall(_NO_METRICS.sub("", expression)):
        if name not in OPERATORS:
            labels = {
                label: value
                for label, _, value in _MATCHER.findall(matchers)
                if label not in ADDED
            }
            yield Selector(name, labels)


@functools.cache
def rules() -> list[dict[str, Any]]:
    """Give the alert rules."""
    [group] = yaml.safe_load(RULES.read_text())["groups"]
    found: list[dict[str, Any]] = group["rules"]
    return found


@functools.cache
def dashboard() -> dict[str, Any]:
    """Give the dashboard."""
    text = (DEPLOY / "grafana" / "alphabet.json").read_text()
    found: dict[str, Any] = json.loads(text)
    return found


def shown() -> list[str]:
    """Give every expression of the dashboard, with its variables filled in."""
    written = [
        *(each["expr"] for panel in panels() for each in panel["targets"]),
        *(each["expr"] for each in dashboard()["annotations"]["list"]),
    ]
    for variable, value in (("__rate_interval", "5m"), ("job", ".*"), ("instance", "")):
        written = [each.replace(f"${variable}", value) for each in written]
    return written


def panels() -> list[dict[str, Any]]:
    """Give the panels that show something."""
    return [each for each in dashboard()["panels"] if each["type"] != "row"]


def sections() -> dict[str, str]:
    """Give the runbooks by their heading."""
    parts = re.split(r"^## (.*)\n", RUNBOOKS, flags=re.MULTILINE)[1:]
    return dict(zip(parts[::2], parts[1::2], strict=True))


def promtool(*words: object) -> None:
    """Run Prometheus' checker; fail with what it says."""
    done = subprocess.run(
        ["promtool", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Premises]:
    """Give a machine whose server has counted, with a snapshot and an absent sink."""
    words = ("--out", f"127.0.0.1:{free_port()}", "--snapshot-every", 1)
    with premises(tmp_path_factory.mktemp("machine"), *words) as made:
        assert submit(int(made.ports["7010"]), wire(VOTES))
        snapshots = made.at("/var/lib/alphabet/snapshots")
        wait_until(lambda: [*snapshots.glob("*.snapshot")], "a snapshot")
        made.stop()
        made.start()
        yield made


@pytest.fixture(scope="module")
def samples(machine: Premises) -> dict[str, list[dict[str, str]]]:
    """Give what a real server tells: the labels of each sample, by its name."""
    with urllib.request.urlopen(
        f"http://{machine.address('8010')}/metrics", timeout=SECONDS_MAX
    ) as response:
        text = response.read().decode()
    told: dict[str, list[dict[str, str]]] = {"up": [{}]}
    for family in text_string_to_metric_families(text):
        for sample in family.samples:
            told.setdefault(sample.name, []).append(sample.labels)
    return told


class TestAlerts:
    """The rules, and a runbook for each."""

    def test_promtool_takes_them(self) -> None:
        """The rules and the sample configuration are sound to Prometheus."""
        promtool("check", "rules", RULES)
        promtool("check", "config", RULES.parent / "prometheus.yml")

    def test_each_comes_when_it_should(self) -> None:
        """Each alert comes for a server in trouble, and not for another."""
        promtool("test", "rules", CASES)
        tested = {each["name"] for each in yaml.safe_load(CASES.read_text())["tests"]}
        assert {each["alert"] for each in rules()} <= tested

    def test_each_looks_at_what_a_server_tells(
        self, samples: dict[str, list[dict[str, str]]]
    ) -> None:
        """Each metric, label and label's value that a rule names is a real server's."""
        assert unknown([each["expr"] for each in rules()], samples) == []

    def test_each_tells_of_labels_that_are_there(
        self, samples: dict[str, list[dict[str, str]]]
    ) -> None:
        """An alert's words name no label that its metrics have not got."""
        for rule in rules():
            known = ADDED.union(
                *(
                    labels
                    for selector in selectors(rule["expr"])
                    for labels in samples[selector.name]
                )
            )
            words = " ".join(rule["annotations"].values())
            assert set(re.findall(r"\$labels\.(\w+)", words)) <= known, rule["alert"]

    def test_each_has_a_runbook(self) -> None:
        """Each alert has words, a severity and its runbook, and no runbook lacks it."""
        for rule in rules():
            notes = rule["annotations"]
            assert rule["labels"]["severity"] in {"critical", "warning"}
            assert notes.keys() == {"summary", "description", "runbook_url"}
            anchor = f"docs/RUNBOOKS.md#{rule['alert'].lower()}"
            assert notes["runbook_url"] == anchor
        assert [*sections()] == [SETUP, *(each["alert"] for each in rules())]

    def test_each_runbook_has_four_parts(self) -> None:
        """A runbook says what is meant, how to look, what to do, when it is over."""
        for name, text in sections().items():
            if name != SETUP:
                parts = re.findall(r"^\*\*(.*?)\.?\*\*", text, re.MULTILINE)
                assert parts == ["Means", "Look", "Do", "Over when"], name

    def test_the_commands_run(self, machine: Premises) -> None:
        """Every command of every runbook runs on a machine with a server."""
        machine.run(RUNBOOKS)


def unknown(
    expressions: list[str], samples: dict[str, list[dict[str, str]]]
) -> list[Selector]:
    """Give what expressions look at and no sample has."""
    looked_at = [each for text in expressions for each in selectors(text)]
    assert len(looked_at) >= len(expressions)
    return [
        each
        for each in looked_at
        if not any(
            each.labels.items() <= labels.items()
            for labels in samples.get(each.name, [])
        )
    ]


class TestDashboard:
    """Grafana's dashboard."""

    def test_it_shows_what_a_server_tells(
        self, samples: dict[str, list[dict[str, str]]]
    ) -> None:
        """Each metric, label and label's value in it is a real server's."""
        assert unknown(shown(), samples) == []

    def test_promtool_takes_its_expressions(self, tmp_path: Path) -> None:
        """Each expression is one to Prometheus."""
        named = [
            {"record": f"panel:{number}", "expr": each}
            for number, each in enumerate(shown())
        ]
        file = tmp_path / "panels.yml"
        file.write_text(yaml.safe_dump({"groups": [{"name": "all", "rules": named}]}))
        promtool("check", "rules", file)

    def test_each_panel_says_what_it_is(self) -> None:
        """Each has a title, a description, a unit, and the data source chosen."""
        for panel in panels():
            assert panel["title"]
            assert panel["description"].endswith(".")
            assert panel["fieldConfig"]["defaults"]["unit"]
            for each in (panel, *panel["targets"]):
                assert each["datasource"]["uid"] == "${datasource}"
        ids = [each["id"] for each in dashboard()["panels"]]
        assert len(set(ids)) == len(ids)

    def test_each_panel_is_of_the_servers_chosen(self) -> None:
        """Every metric of every panel is of the job and instance that are chosen."""
        for panel in panels():
            for target in panel["targets"]:
                chosen = target["expr"].count('{job=~"$job", instance=~"$instance"')
                assert chosen == len([*selectors(target["expr"])]), panel["title"]
        names = [each["name"] for each in dashboard()["templating"]["list"]]
        assert names == ["datasource", "job", "instance"]

    def test_no_panel_lies_on_another(self) -> None:
        """Panels fit beside each other on Grafana's 24 columns, under their rows."""
        cells = [
            (x, y)
            for panel in dashboard()["panels"]
            for place in [panel["gridPos"]]
            for x, y in itertools.product(
                range(place["x"], place["x"] + place["w"]),
                range(place["y"], place["y"] + place["h"]),
            )
        ]
        assert len(set(cells)) == len(cells)
        assert max(x for x, _ in cells) < 24
        rows = [
            each["title"] for each in dashboard()["panels"] if each["type"] == "row"
        ]
        assert len(rows) == 6
