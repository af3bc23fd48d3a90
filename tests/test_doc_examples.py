"""What people copy from the documents runs as it stands, but for its ports."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.console import Terminal, Typed, Written, is_shown, steps
from tests.documents import DOCUMENTS, fenced
from tests.process import ROOT, environment, serving

# A session of its own each. REPLAY.md's examples are about logs of many kinds, and
# are run by the tests of those commands.
GUIDES = [
    file
    for file in DOCUMENTS
    if file.name != "REPLAY.md" and fenced(file.read_text(), "console")
]


def identify(file: Path) -> str:
    """Name a document in a test's own name."""
    return file.relative_to(ROOT).as_posix()


class TestExamples:
    """Console blocks of each guide, and Python blocks of every document."""

    @pytest.mark.parametrize("file", GUIDES, ids=identify)
    def test_what_is_typed_prints_what_is_shown(
        self, file: Path, tmp_path: Path
    ) -> None:
        """A document's commands, one after the other, print what it shows."""
        with Terminal.open(tmp_path) as terminal:
            terminal.follow(file.read_text())

    def test_there_is_one_for_each_job(self) -> None:
        """The README, each guide, tutorial and example, but for one, have some."""
        places = {identify(file) for file in GUIDES}
        below = {
            each
            for each in map(identify, DOCUMENTS)
            if each.startswith(("docs/howto/", "docs/tutorial/", "examples/"))
        }
        guides = below | {"README.md", "docs/FROM_WALLAROO.md"}
        assert places == guides - {"docs/tutorial/application.md"}

    def test_python_examples(self, tmp_path: Path) -> None:
        """Every fenced Python example runs to its end, beside a server."""
        examples = [
            (file.name, code)
            for file in DOCUMENTS
            for code in fenced(file.read_text(), "python")
        ]
        assert examples
        with serving(tmp_path) as server:
            for name, code in examples:
                text = code.replace("7010", str(server.port))
                done = subprocess.run(
                    [sys.executable, "-W", "error", "-c", text],
                    cwd=tmp_path,
                    env=environment({}),
                    capture_output=True,
                    text=True,
                    timeout=30,
                    check=False,
                )
                assert done.returncode == 0, f"{name}: {done.stderr}"


class TestTerminal:
    """What runs the blocks would see if one were wrong."""

    def test_steps(self) -> None:
        """Files, commands over two lines, and what they print, are found in order."""
        text = (
            'A\n```python title="a.py"\nx\n```\n```sh\n$ no\n```\n'
            "```console\n$ one \\\n  two\n1\n2\n$ three\n```\n"
        )
        assert list(steps(text)) == [
            Written("a.py", "x\n"),
            Typed("one   two", ["1", "2"]),
            Typed("three", []),
        ]

    @pytest.mark.parametrize(
        ("lines", "shown", "same"),
        [
            (["a", "b"], ["a", "b"], True),
            (["a", "b"], ["a"], False),
            (["a"], ["a", "b"], False),
            (["a.c"], ["abc"], False),
            (["abc"], ["a.c"], False),
            (["took 3 s"], ["took … s"], True),
            (["took 3 h"], ["took … s"], False),
            (["a", "x", "y", "b"], ["a", "…", "b"], True),
            (["a", "b"], ["a", "…", "b"], True),
            (["a", "x", "c"], ["a", "…", "b"], False),
            ([], ["…"], True),
            ([], [], True),
        ],
    )
    def test_is_shown(self, lines: list[str], shown: list[str], same: bool) -> None:
        """Lines are as shown, but for what `…` stands for."""
        assert is_shown(lines, shown) == same

    @pytest.mark.parametrize(
        "block",
        [
            "$ echo a\nb\n",
            "$ false\n",
            "$ alphabet-replay state counted\n",
            "$ alphabet run --in 127.0.0.1:7010 --no-such\nlistening in 127.0.0.1:1\n",
        ],
    )
    def test_a_wrong_document_is_seen(self, block: str, tmp_path: Path) -> None:
        """Other output, and a command that fails, fail the session."""
        with Terminal.open(tmp_path) as terminal, pytest.raises(AssertionError):
            terminal.follow(f"```console\n{block}```\n")
