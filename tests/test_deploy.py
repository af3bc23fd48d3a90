"""docs/deploy against the code: what units and images say is so.

No systemd or container engine is needed: the files are read as those would.
"""

import json
import re
import shlex
import shutil
import signal
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from alphabet.cli import EXIT_CODES, alphabet
from alphabet.command_line import CannotServeError, DamageError
from alphabet.commands.run import HTTP_DEFAULT, CommitFailedError, run
from alphabet.network.inherited_sockets import LABELS
from alphabet.server import STOP_SECONDS_MAX
from tests.premises import UNITS as PREMISES_UNITS
from tests.process import ROOT

DEPLOY = ROOT / "docs" / "deploy"
SYSTEMD = DEPLOY / "systemd"
UNITS = sorted(SYSTEMD.glob("alphabet*.s*"))
CONTAINERFILE = (DEPLOY / "Containerfile").read_text()
YAML = ((DEPLOY / "compose.yaml"), (DEPLOY / "kubernetes" / "alphabet.yaml"))


def unit(path: Path) -> dict[str, list[str]]:
    """Read a unit: each setting's values in order, an empty one ends those before."""
    settings: dict[str, list[str]] = {}
    for line in path.read_text().splitlines():
        if line and line[0] not in "#[":
            name, equals, value = line.partition("=")
            assert equals, line
            settings.setdefault(name, []).append(value)
    return settings


def only(settings: dict[str, list[str]], name: str) -> str:
    """Give the one value of a setting."""
    [value] = settings[name]
    return value


def variables() -> set[str]:
    """Give the variables of the options of `alphabet run`."""
    return {str(each.envvar) for each in run.params if isinstance(each, click.Option)}


def instructions() -> list[tuple[str, str]]:
    """Read the Containerfile: each instruction and the rest of its lines."""
    text = re.sub(r"^#.*\n", "", CONTAINERFILE, flags=re.MULTILINE)
    lines = text.replace("\\\n", " ").splitlines()
    found = [line.partition(" ") for line in lines if line]
    return [(name, " ".join(rest.split())) for name, _, rest in found]


def given(name: str) -> Iterator[str]:
    """Give what stands behind each instruction of a name."""
    return (rest for each, rest in instructions() if each == name)


class TestSystemd:
    """The units."""

    def test_exit_codes(self) -> None:
        """Those that no start mends prevent one, and those that it may do not."""
        service = unit(SYSTEMD / "alphabet.service")
        assert only(service, "Restart") == "on-failure"
        prevented = {int(n) for n in only(service, "RestartPreventExitStatus").split()}
        assert prevented == {DamageError.exit_code, click.UsageError.exit_code}
        assert prevented <= EXIT_CODES.keys()
        mending = {CannotServeError.exit_code, CommitFailedError.exit_code}
        assert not prevented & mending

    def test_the_stop(self) -> None:
        """It is asked by the signal that is heeded, with more time than it takes."""
        service = unit(SYSTEMD / "alphabet.service")
        assert only(service, "KillSignal") == signal.SIGTERM.name
        assert int(only(service, "TimeoutStopSec").rstrip("s")) > STOP_SECONDS_MAX + 1
        assert only(service, "ExecReload").split()[1:] == ["-HUP", "$MAINPID"]
        assert only(service, "Type") == "notify"

    def test_the_command_and_its_variables(self) -> None:
        """It runs our command; each variable it sets, or proposes, is an option's."""
        service = unit(SYSTEMD / "alphabet.service")
        program, *words = shlex.split(only(service, "ExecStart"))
        assert Path(program).name in scripts()
        assert words == [run.name]
        proposed = (SYSTEMD / "alphabet.env").read_text()
        named = set(re.findall(r"^(?:# )?(ALPHABET_\w+)=", proposed, re.MULTILINE))
        for line in service["Environment"]:
            named |= {word.partition("=")[0] for word in line.split()}
        assert len(named) > 3
        assert named <= variables()

    def test_the_places_are_those_of_the_procedures(self) -> None:
        """The log is where OPERATING.md has it, and belongs to a user that stays."""
        service = unit(SYSTEMD / "alphabet.service")
        operating = (ROOT / "docs" / "OPERATING.md").read_text()
        state = f"/var/lib/{only(service, 'StateDirectory')}"
        assert f"ALPHABET_DATA_DIR={state}" in service["Environment"][0].split()
        assert f"the data directory is `{state}`" in operating
        assert "DynamicUser" not in service
        user = only(service, "User")
        assert only(service, "Group") == user
        install = (ROOT / "docs" / "INSTALL.md").read_text()
        assert re.search(rf"^useradd .* {user}$", install, re.MULTILINE)
        assert f"* * * * {user} /usr/local/bin/alphabet-replay backup" in operating

    def test_a_stop_stops_the_sockets(self) -> None:
        """Procedures that move the directory stop what would start the server again."""
        units = {each.name for each in UNITS}
        assert units == set(PREMISES_UNITS)
        operating = (ROOT / "docs" / "OPERATING.md").read_text()
        named = re.findall(r"^systemctl (?:stop|start) (.*)$", operating, re.MULTILINE)
        assert named
        assert all(set(each.split()) == units for each in named)

    @pytest.mark.parametrize("name", ["alphabet.socket", "alphabet-http.socket"])
    def test_sockets(self, name: str) -> None:
        """A socket has a name that the server takes, and listens on loopback."""
        opened = unit(SYSTEMD / name)
        label = only(opened, "FileDescriptorName")
        assert label in LABELS
        default = "127.0.0.1:7010" if label == "in" else str(HTTP_DEFAULT)
        assert only(opened, "ListenStream") == default
        assert (SYSTEMD / only(opened, "Service")).exists()
        assert name in only(unit(SYSTEMD / "alphabet.service"), "After").split()

    def test_systemd_has_nothing_to_say(self, tmp_path: Path) -> None:
        """Where there is systemd, it finds no fault, and an exposure that is OK."""
        if shutil.which("systemd-analyze") is None:
            return
        program = tmp_path / "alphabet"
        program.write_text("#!/bin/sh\n")
        program.chmod(0o755)
        for each in UNITS:
            text = each.read_text().replace("/opt/alphabet/bin/alphabet", str(program))
            (tmp_path / each.name).write_text(text)
        files = [tmp_path / each.name for each in UNITS]
        assert analyzed("verify", *files) == ""
        service = tmp_path / "alphabet.service"
        score = analyzed("security", "--offline=true", "--threshold=20", service)
        assert " OK " in score.splitlines()[-1]


def analyzed(*words: object) -> str:
    """Give what systemd-analyze says; fails if it does."""
    done = subprocess.run(
        ["systemd-analyze", "--no-pager", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done
    return (done.stdout + done.stderr).strip()


def scripts() -> set[str]:
    """Give the commands that an installation has."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    return set(project["scripts"])


class TestImage:
    """The Containerfile, and what is built on it."""

    def test_what_is_copied_is_there(self) -> None:
        """Each source exists, and is let into the build; all packages are copied."""
        copied = [
            word
            for rest in given("COPY")
            if not rest.startswith("--from=")
            for word in rest.split()[:-1]
        ]
        assert [word for word in copied if not (ROOT / word).exists()] == []
        let_in = (ROOT / ".containerignore").read_text().splitlines()
        assert {f"!{word}" for word in copied} == {w for w in let_in if w[0] == "!"}
        hatch = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]
        wheel = hatch["build"]["targets"]["wheel"]
        assert {*wheel["packages"], *wheel["shared-data"]} <= set(copied)

    def test_it_runs_our_command(self) -> None:
        """Entry point, command and health check are lists, and commands of ours."""
        [entry], [command] = given("ENTRYPOINT"), given("CMD")
        [check] = given("HEALTHCHECK")
        words = [*json.loads(entry), *json.loads(command)]
        asked = json.loads(check.partition(" CMD ")[2])
        context = click.Context(alphabet)
        for program, name in (words, asked):
            assert program in scripts()
            assert alphabet.get_command(context, name) is not None
        assert list(given("STOPSIGNAL")) == [signal.SIGTERM.name]

    def test_a_build_keeps_the_health_check(self) -> None:
        """Each `podman build` that is told of is of the format that has one."""
        texts = [CONTAINERFILE, (ROOT / "docs" / "INSTALL.md").read_text()]
        for text in texts:
            builds = re.findall(r"podman build .*", text)
            assert builds
            assert all("--format docker" in each for each in builds)

    def test_it_is_nobody(self) -> None:
        """Its user is a number that is not root's, and owns the volume."""
        order = [name for name, _ in instructions()]
        [user], [volume] = given("USER"), given("VOLUME")
        number = user.partition(":")[0]
        assert int(number) > 0
        made = [rest for rest in given("RUN") if f"--uid {number} " in rest]
        assert any(f"--owner={number}" in each and volume in each for each in made)
        behind = order[order.index("USER") :]
        assert "ENTRYPOINT" in behind
        assert not {"RUN", "COPY"} & set(behind)

    def test_ports_and_variables(self) -> None:
        """What it exposes is what it listens on; its variables are options' own."""
        [environment] = given("ENV")
        values = dict(word.split("=", 1) for word in shlex.split(environment))
        ours = {name for name in values if name.startswith("ALPHABET_")}
        assert ours <= variables()
        ports = {values[f"ALPHABET_{n}"].rpartition(":")[2] for n in ("IN", "HTTP")}
        [exposed], [volume] = given("EXPOSE"), given("VOLUME")
        assert set(exposed.split()) == ports
        assert values["ALPHABET_DATA_DIR"].startswith(f"{volume}/")

    @pytest.mark.parametrize("path", YAML, ids=lambda path: path.name)
    def test_who_starts_it(self, path: Path) -> None:
        """They mount the volume, publish the ports, and wait for a stop's 10 s."""
        text = path.read_text()
        [volume], [exposed], [user] = given("VOLUME"), given("EXPOSE"), given("USER")
        assert volume in text
        assert all(port in text for port in exposed.split())
        [seconds] = re.findall(r"grace_?period\w*: (\d+)", text, re.IGNORECASE)
        assert int(seconds) > STOP_SECONDS_MAX + 1
        for number in re.findall(r"(?:runAs\w+|fsGroup): (\d+)$", text, re.MULTILINE):
            assert number in user.split(":")
        asked = set(re.findall(r"path: (/\w+),", text))
        site = (ROOT / "alphabet" / "web" / "site.py").read_text()
        assert all(f'("{each}"' in site for each in asked)
