"""`alphabet new`: what it writes is whole, and nothing is overwritten."""

import keyword
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from alphabet.starter import (
    NAME_CHARS_MAX,
    PLACEHOLDER,
    ApplicationNameError,
    check_name,
    starter_files,
)
from tests.console import Terminal
from tests.process import PYTHON, Finished, environment, finish

FILES = {"tally.py", "test_tally.py", "README.md"}


def new(place: Path, *words: object) -> Finished:
    """Run the command in a directory."""
    return finish("alphabet.cli", "new", *words, working_directory=place)


def tool(place: Path, *words: str) -> Finished:
    """Run a tool for Python in a directory that is no part of this project."""
    done = subprocess.run(
        [*PYTHON, *words],
        cwd=place,
        env=environment({}),
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    return Finished(done.returncode, done.stdout, done.stderr)


@pytest.fixture
def tally(tmp_path: Path) -> Path:
    """Give the directory of a new application."""
    done = new(tmp_path, "tally")
    assert done == Finished(
        0,
        "made tally/tally.py\nmade tally/test_tally.py\nmade tally/README.md\n"
        "tally/README.md says how to test it and run it\n",
        "",
    )
    assert {each.name for each in tmp_path.iterdir()} == {"tally"}
    assert {each.name for each in (tmp_path / "tally").iterdir()} == FILES
    return tmp_path / "tally"


class TestWhatIsWritten:
    """The application, as whoever asked for it finds it."""

    def test_its_tests_pass(self, tally: Path) -> None:
        """They are found by themselves, and all pass."""
        done = tool(tally, "pytest", "-q", "-p", "no:cacheprovider")
        assert done.code == 0, done
        assert "6 passed" in done.stdout

    def test_its_tests_can_fail(self, tally: Path) -> None:
        """A mistake in the application is seen by them."""
        module = tally / "tally.py"
        module.write_text(module.read_text().replace("+ 1", "+ 2"))
        assert tool(tally, "pytest", "-q", "-p", "no:cacheprovider").code == 1

    def test_its_types_are_right(self, tally: Path) -> None:
        """The strict type checker has nothing to say, and would have."""
        strict = ("mypy", "--strict", "--config-file=", f"--cache-dir={tally / 'c'}")
        done = tool(tally, *strict, ".")
        assert done.code == 0, done
        module = tally / "tally.py"
        text = module.read_text()
        module.write_text(text.replace("CountsBuilder(), ", "Encoder(), "))
        assert "to_stateful" in tool(tally, *strict, ".").stdout

    def test_its_style_is_right(self, tally: Path) -> None:
        """A formatter leaves it alone, and a linter finds nothing."""
        for words in (["check", "--no-cache"], ["format", "--check", "--no-cache"]):
            done = tool(tally, "ruff", *words, "--isolated", ".")
            assert done.code == 0, done

    def test_it_runs_as_its_readme_says(self, tmp_path: Path) -> None:
        """A server runs it, is killed, and a replay finds all of it."""
        with Terminal.open(tmp_path) as terminal:
            assert new(terminal.place, "tally").code == 0
            terminal.place /= "tally"
            terminal.follow((terminal.place / "README.md").read_text())


class TestRefusals:
    """What `alphabet new` does not do."""

    @pytest.mark.parametrize("kind", ["file", "directory", "link"])
    def test_nothing_is_overwritten(self, tmp_path: Path, kind: str) -> None:
        """Whatever has the name stays as it is."""
        place = tmp_path / "tally"
        if kind == "file":
            place.touch()
        elif kind == "directory":
            place.mkdir()
        else:
            place.symlink_to("nowhere")
        done = new(tmp_path, "tally")
        said = "alphabet: tally is there already; give another NAME or --path\n"
        assert done == Finished(3, "", said)
        assert list(tmp_path.rglob("*")) == [place]

    @pytest.mark.parametrize(
        ("name", "reason"),
        [
            ("Tally", "is no module's name"),
            ("2day", "is no module's name"),
            ("a-b", "is no module's name"),
            ("../tally", "is no module's name"),
            ("", "is no module's name"),
            ("a\n", "is no module's name"),
            ("a" * (NAME_CHARS_MAX + 1), "is no module's name"),
            ("class", "is a word of Python's"),
            ("match", "is a word of Python's"),
            ("log", "is a module already"),
            ("wallaroo", "is a module already"),
            ("json", "is a module already"),
            ("numpy", "is a module already"),
            ("conftest", "is a module already"),
        ],
    )
    def test_names(self, name: str, reason: str) -> None:
        """A name that could not be imported, or would be another's, says why."""
        with pytest.raises(ApplicationNameError, match=reason):
            check_name(name)

    def test_a_bad_name_is_one_line(self, tmp_path: Path) -> None:
        """It is wrong usage, and nothing is made."""
        done = new(tmp_path, "my-app")
        assert (done.code, done.stdout) == (2, "")
        assert len(done.stderr.splitlines()) == 1
        assert "'my-app' is no module's name: up to 40 of a to z" in done.stderr
        assert list(tmp_path.iterdir()) == []

    def test_no_such_directory(self, tmp_path: Path) -> None:
        """A place that is not there is named."""
        done = new(tmp_path, "tally", "--path", "none")
        said = "alphabet: cannot make none/tally (No such file or directory)\n"
        assert done == Finished(3, "", said)

    def test_half_a_directory_is_never_left(self, tmp_path: Path) -> None:
        """Where a file cannot be written whole, nothing is left."""
        command = f"ulimit -f 1; exec {sys.executable} -P -m alphabet.cli new tally"
        done = subprocess.run(
            ["bash", "-c", command],
            cwd=tmp_path,
            env=environment({}),
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.stderr == "alphabet: cannot make tally (File too large)\n"
        assert done.returncode == 3
        assert list(tmp_path.iterdir()) == []

    def test_the_directory_is_chosen(self, tmp_path: Path) -> None:
        """`--path` says where the application's own directory goes."""
        (tmp_path / "below").mkdir()
        assert new(tmp_path, "tally", "--path", "below").code == 0
        assert {each.name for each in (tmp_path / "below/tally").iterdir()} == FILES


@given(st.text(max_size=8) | st.from_regex(r"[a-z_0-9]{1,9}", fullmatch=True))
def test_any_name(name: str) -> None:
    """What is taken as a name can be imported, and is written wherever it belongs."""
    try:
        check_name(name)
    except ApplicationNameError:
        return
    assert name.isascii()
    assert name.isidentifier()
    assert not keyword.iskeyword(name)
    files = starter_files(name)
    assert set(files) == {f"{name}.py", f"test_{name}.py", "README.md"}
    assert not any(PLACEHOLDER in text for text in files.values())
    assert f"from {name} import" in files[f"test_{name}.py"]
    for file in (f"{name}.py", f"test_{name}.py"):
        compile(files[file], file, "exec")
