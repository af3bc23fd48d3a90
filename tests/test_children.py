"""Child processes that do not do what is expected are named, and none is left."""

from pathlib import Path

import pytest

from alphabet.trial.children import Child, ChildError, Children
from tests.votes import wire

RECEIVE = ("receiver", "alphabet.cli", "receive", "--listen", "127.0.0.1:0")


@pytest.fixture
def children(tmp_path: Path) -> Children:
    """Give children whose words go to a directory of the test's own."""
    return Children(tmp_path)


def started(children: Children) -> Child:
    """Start a receiver and wait until it listens."""
    receiver = children.start(*RECEIVE)
    assert receiver.await_line("listening in ", is_error=True).startswith("127.0.0.1:")
    return receiver


def test_none_is_left(children: Children) -> None:
    """Whatever ends the block, the children have ended behind it."""
    with children:
        receiver = started(children)
        assert receiver.is_alive
    assert receiver.process.returncode == -9


def test_a_line_that_does_not_come_is_named(children: Children) -> None:
    """A child that is silent for too long is no wait for ever."""
    with children:
        receiver = started(children)
        with pytest.raises(ChildError, match="receiver has not said 'hello' after 0 s"):
            receiver.await_line("hello", seconds=0)


def test_an_end_that_does_not_come_is_named(children: Children) -> None:
    """A child that does not end is no wait for ever."""
    with children:
        receiver = started(children)
        with pytest.raises(ChildError, match="receiver has not ended after 0 s"):
            receiver.await_end(0)


def test_a_line_that_cannot_come_is_named(children: Children) -> None:
    """A child that ended gives the reason that it gave itself."""
    with children:
        child = children.start("sender", "alphabet.cli", "send")
        with pytest.raises(ChildError, match=r"sender ended \(2\): .*give a FILE"):
            child.await_line("sent ")


def test_an_exit_code_that_is_not_expected_is_named(children: Children) -> None:
    """A program that fails is not taken for one that printed nothing."""
    with children, pytest.raises(ChildError, match=r"exit code 3: .*no such"):
        children.run("info", "recovery.cli", "info", children.directory / "none")


def test_a_setting_in_the_environment_does_not_reach_it(
    children: Children, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child obeys its words alone, whatever its parent's environment says."""
    monkeypatch.setenv("ALPHABET_FORMAT", "nonsense")
    file = children.directory / "votes"
    file.write_bytes(wire([(b"a", 3)]))
    with children:
        sent = children.run("sender", "alphabet.cli", "send", file, "--to", "-")
    assert sent.encode() == file.read_bytes()
