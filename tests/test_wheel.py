"""What an installed Alphabet consists of, read from a wheel built here."""

import os
import subprocess
import sys
import sysconfig
import tomllib
import venv
from collections.abc import Iterator
from configparser import ConfigParser
from pathlib import Path
from zipfile import ZipFile

import pytest
from hatchling.build import build_wheel

from alphabet.starter import starter_files

ROOT = Path(__file__).parent.parent
PACKAGES = {"alphabet", "log", "recovery"}


@pytest.fixture
def wheel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[ZipFile]:
    """Yield the wheel of this checkout, opened."""
    monkeypatch.chdir(ROOT)
    with ZipFile(tmp_path / build_wheel(str(tmp_path))) as opened:
        yield opened


def dist_info(wheel: ZipFile) -> str:
    """Return the name of the wheel's metadata folder."""
    [name] = {n.partition("/")[0] for n in wheel.namelist() if ".dist-info/" in n}
    return name


class TestWheel:
    """The wheel's contents."""

    def test_it_holds_the_three_packages_only(self, wheel: ZipFile) -> None:
        """At its top level are the packages and the metadata, nothing else.

        What goes elsewhere than the packages is the manual pages alone.
        """
        data = dist_info(wheel).replace(".dist-info", ".data")
        top = {name.partition("/")[0] for name in wheel.namelist()}
        assert top == PACKAGES | {dist_info(wheel), data}
        assert {name for name in wheel.namelist() if name.startswith(data)} == {
            f"{data}/data/share/man/man1/alphabet.1",
            f"{data}/data/share/man/man1/alphabet-replay.1",
        }

    def test_it_holds_every_module(self, wheel: ZipFile) -> None:
        """Each module of the checkout's packages is in it."""
        modules = {
            path.relative_to(ROOT).as_posix()
            for package in PACKAGES
            for path in (ROOT / package).rglob("*.py")
        }
        assert {n for n in wheel.namelist() if n.endswith(".py")} == modules

    def test_it_holds_what_a_new_application_is_made_of(self, wheel: ZipFile) -> None:
        """Each template of `alphabet new` is in it."""
        place = ROOT / "alphabet" / "templates"
        templates = {each.relative_to(ROOT).as_posix() for each in place.iterdir()}
        assert len(templates) == len(starter_files("tally"))
        assert templates <= set(wheel.namelist())

    def test_it_says_that_it_is_typed(self, wheel: ZipFile) -> None:
        """Type checkers find each package's marker."""
        assert {f"{package}/py.typed" for package in PACKAGES} <= set(wheel.namelist())

    def test_it_carries_the_licence(self, wheel: ZipFile) -> None:
        """The licence's text goes along, unchanged."""
        text = wheel.read(f"{dist_info(wheel)}/licenses/LICENSE")
        assert text == (ROOT / "LICENSE").read_bytes()

    def test_it_installs_two_commands(self, wheel: ZipFile) -> None:
        """The commands are those that pyproject.toml declares, in modules it holds."""
        entry_points = ConfigParser()
        entry_points.read_string(
            wheel.read(f"{dist_info(wheel)}/entry_points.txt").decode()
        )
        scripts = dict(entry_points["console_scripts"])
        assert scripts == {
            "alphabet": "alphabet.program:run_alphabet",
            "alphabet-replay": "alphabet.program:run_alphabet_replay",
        }
        modules = {
            s.partition(":")[0].replace(".", "/") + ".py" for s in scripts.values()
        }
        assert modules <= set(wheel.namelist())

    def test_its_version_is_the_projects(self, wheel: ZipFile) -> None:
        """The metadata folder names the distribution and its version."""
        project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
        assert dist_info(wheel) == f"alphabet_votes-{project['version']}.dist-info"

    def test_it_installs_without_the_network(
        self, wheel: ZipFile, tmp_path: Path
    ) -> None:
        """In a new environment both commands say the version, from the wheel's code."""
        place = tmp_path / "installed"
        venv.create(place)
        python = str(place / "bin" / "python")
        options = ["--no-index", "--no-deps", "--quiet", "--disable-pip-version-check"]
        pip = [sys.executable, "-m", "pip"]
        # Whoever has an index set up is not to ask it.
        clean = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
        subprocess.run(
            [*pip, "--python", python, "install", *options, str(wheel.filename)],
            check=True,
            env=clean,
            timeout=120,
        )
        # What it needs is lent by the environment that we are in.
        lent = sysconfig.get_path("purelib")
        [packages] = place.glob("lib/python*/site-packages")
        (packages / "lent.pth").write_text(lent)
        version = dist_info(wheel).removesuffix(".dist-info").partition("-")[2]
        for program in ("alphabet", "alphabet-replay"):
            done = subprocess.run(
                [str(place / "bin" / program), "--version"],
                check=True,
                cwd=tmp_path,
                env=clean,
                capture_output=True,
                text=True,
                timeout=60,
            )
            assert version in done.stdout
            page = place / "share" / "man" / "man1" / f"{program}.1"
            assert page.read_bytes() == (ROOT / "docs/man" / page.name).read_bytes()
        where = "import alphabet.cli, log, recovery; print(alphabet.cli.__file__)"
        done = subprocess.run(
            [python, "-c", where],
            check=True,
            cwd=tmp_path,
            env=clean,
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert Path(done.stdout.strip()).is_relative_to(packages)
