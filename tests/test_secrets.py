"""Secrets stay secret, nothing from others is unpickled, the document is true."""

import ast
import inspect
import pickle
import re
from pathlib import Path

import attrs

from alphabet.assembly import Settings
from alphabet.connector import inbound, receiver
from alphabet.connector.client import ConnectorClient
from alphabet.connector.frames import VERSION_IN, VERSION_OUT, Hello
from alphabet.sending.stream_send import StreamChoice
from recovery.snapshot import State
from recovery.snapshot_directory import SnapshotDirectory
from tests.documents import quoted
from tests.process import ANY, ROOT, serving, submit
from tests.test_architecture import modules, top_levels
from tests.votes import wire

COOKIE = b"open-sesame"
SECURITY = (ROOT / "docs" / "SECURITY.md").read_text(encoding="utf-8")
UNPICKLERS = {
    "pickle",
    "_pickle",
    "cPickle",
    "dill",
    "cloudpickle",
    "marshal",
    "shelve",
}


class TestCookies:
    """The connector's cookies."""

    def test_cookies_are_compared_in_constant_time(self) -> None:
        """Wherever a cookie is compared, `hmac.compare_digest` does it."""
        compared = []
        for name, tree in modules().items():
            for node in ast.walk(tree):
                if isinstance(node, ast.Compare):
                    words = ast.unparse(node)
                    if re.search(r"\bcookie\b", words) and "len(" not in words:
                        compared.append((name, words))
        assert compared == []
        for module in (inbound, receiver):
            source = inspect.getsource(module)
            assert "hmac.compare_digest(hello.cookie," in source

    def test_cookies_are_shown_nowhere(self) -> None:
        """No value that holds a cookie has it in its `repr`."""
        holders = [
            Hello(VERSION_IN, COOKIE, b"p", b"i"),
            Hello(VERSION_OUT, COOKIE, b"p", b"i"),
            ConnectorClient(1, b"s", b"i", COOKIE),
            StreamChoice(b"s", 1, "i", COOKIE),
            Settings(Path(), (), connector_cookie=COOKIE, connector_out_cookie=COOKIE),
        ]
        assert [each for each in holders if COOKIE.decode() in repr(each)] == []

    def test_a_server_says_no_cookie(self, tmp_path: Path) -> None:
        """Neither `ps` nor what a server says has its cookie."""
        file = tmp_path / "cookie"
        file.write_bytes(COOKIE)
        file.chmod(0o600)
        words = ["--connector-in", ANY, "--connector-cookie-file", file]
        with serving(tmp_path, *words) as server:
            for what in ("cmdline", "environ"):
                seen = Path(f"/proc/{server.pid}/{what}").read_bytes()
                assert COOKIE not in seen
            assert server.stop() == 0
        assert COOKIE not in server.stdout.read_bytes() + server.stderr.read_bytes()


class TestPickle:
    """Code that runs what it reads."""

    def test_one_module_knows_pickle(self) -> None:
        """One module imports pickle, or anything else that runs what it loads."""
        found = {
            name
            for name, tree in modules().items()
            if top_levels(name, tree) & UNPICKLERS
        }
        assert found == {"alphabet/pipeline/state_codec.py"}

    def test_a_pickled_snapshot_is_not_loaded(self, tmp_path: Path) -> None:
        """A pickle in a snapshot of Alphabet's own is passed over, and not run."""
        ran = tmp_path / "ran"
        with serving(tmp_path, "--snapshot-every", 1) as server:
            assert submit(server.port, wire([(b"a", 1)]))
            assert server.stop() == 0
        directory = SnapshotDirectory(tmp_path / "data" / "snapshots")
        snapshot = directory.read(1)
        [state] = snapshot.states
        for encoding in ("pickle", state.encoding):
            evil = State(state.name, encoding, pickle.dumps(_Touch(ran)))
            directory.file(1).unlink()
            directory.write(attrs.evolve(snapshot, states=(evil,)))
            with serving(tmp_path) as server:
                assert "RESILIENCE: Replayed 1 entries" in "".join(server.lines())
                assert server.stop() == 0
            assert not ran.exists()


@attrs.frozen
class _Touch:
    """Makes a file where it is unpickled."""

    file: Path

    def __reduce__(self) -> tuple[object, ...]:
        """Say how."""
        return Path.touch, (self.file,)


class TestDocument:
    """docs/SECURITY.md against the code."""

    def test_caps_exist(self) -> None:
        """Each constant that the document names is in the module that it names."""
        rows = re.findall(r"`(\w+)` in `([\w/]+\.py)`", SECURITY)
        assert len(rows) > 5
        missing = [
            (name, path)
            for name, path in rows
            if not re.search(rf"^{name}\b", (ROOT / path).read_text(), re.MULTILINE)
        ]
        assert missing == []

    def test_options_exist(self) -> None:
        """Each option that the document names is one of `run`'s."""
        readme = (ROOT / "README.md").read_text()
        named = {each for each in quoted(SECURITY) if each.startswith("--")}
        assert [each for each in named if f"`{each}" not in readme] == []
