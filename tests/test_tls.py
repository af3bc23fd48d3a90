"""Contexts from files: what is good is served with, what is not is said in a line."""

import shutil
import ssl
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from alphabet.network import tls
from alphabet.network.certificates import Certificates, TlsFiles
from alphabet.network.tls import TlsFileError, client_context, server_context
from tests.authority import HOST, Authority, Pair


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    """Give an authority."""
    return Authority.make(tmp_path_factory.mktemp("authority"))


class TestContexts:
    """What is made of good files."""

    def test_a_server_is_careful(self, authority: Authority) -> None:
        """TLS 1.2 is the least, nothing is renegotiated, and no ticket is given."""
        pair = authority.server
        context = server_context(pair.certificate, pair.key)
        assert context.minimum_version == ssl.TLSVersion.TLSv1_2
        assert context.options & ssl.OP_NO_RENEGOTIATION
        assert context.options & ssl.OP_NO_COMPRESSION
        assert context.num_tickets == 0
        assert context.verify_mode == ssl.CERT_NONE

    def test_a_client_authority_makes_certificates_needed(
        self, authority: Authority
    ) -> None:
        """With an authority for clients, a client must have a certificate."""
        pair = authority.server
        context = server_context(pair.certificate, pair.key, authority.ca)
        assert context.verify_mode == ssl.CERT_REQUIRED

    def test_a_client_is_careful(self, authority: Authority) -> None:
        """A client checks the certificate and the host, with one of its own or not."""
        pair = authority.client
        for context in (
            client_context(authority.ca),
            client_context(authority.ca, pair.certificate, pair.key),
        ):
            assert context.minimum_version == ssl.TLSVersion.TLSv1_2
            assert context.verify_mode == ssl.CERT_REQUIRED
            assert context.check_hostname
            # Our own certificate was tried out, and is trusted by nobody for that.
            assert len(context.get_ca_certs()) == 1


class TestBadFiles:
    """What an operator may get wrong."""

    def test_missing(self, authority: Authority, tmp_path: Path) -> None:
        """A file that is not there is named, with the system's reason."""
        pair, none = authority.server, tmp_path / "none"
        with pytest.raises(TlsFileError, match="none cannot be read: No such file"):
            server_context(none, pair.key)
        with pytest.raises(TlsFileError, match="none cannot be read: No such file"):
            server_context(pair.certificate, none)
        with pytest.raises(TlsFileError, match="none cannot be read: No such file"):
            server_context(pair.certificate, pair.key, none)
        with pytest.raises(TlsFileError, match="none cannot be read: No such file"):
            client_context(none)

    def test_something_else(self, authority: Authority, tmp_path: Path) -> None:
        """A file that holds something else is named, with what it should be."""
        pair, other = authority.server, tmp_path / "other"
        other.write_text("votes")
        other.chmod(0o600)
        with pytest.raises(TlsFileError, match="other is no PEM file with a cert"):
            server_context(other, pair.key)
        with pytest.raises(TlsFileError, match="other is no PEM file with a private"):
            server_context(pair.certificate, other)
        with pytest.raises(TlsFileError, match="other is no PEM file with an auth"):
            client_context(other)

    def test_another_key(self, authority: Authority) -> None:
        """A key that belongs to another certificate is refused."""
        with pytest.raises(TlsFileError, match=r"client\.key is not the key of .*serv"):
            server_context(authority.server.certificate, authority.client.key)

    def test_an_encrypted_key(self, authority: Authority, tmp_path: Path) -> None:
        """A key that needs a password is refused, and nobody is asked for it."""
        key = tmp_path / "locked.key"
        subprocess.run(
            ["openssl", "pkey", "-aes256", "-passout", "pass:secret", "-out", str(key)],
            input=authority.server.key.read_bytes(),
            check=True,
        )
        key.chmod(0o600)
        with pytest.raises(TlsFileError, match="is encrypted, and nobody"):
            server_context(authority.server.certificate, key)

    @pytest.mark.parametrize("mode", [0o604, 0o602, 0o601, 0o620, 0o610])
    def test_a_key_for_all_to_see(
        self, authority: Authority, tmp_path: Path, mode: int
    ) -> None:
        """A key that others may read or change is refused, and how to mend it said."""
        key = tmp_path / "open.key"
        shutil.copy(authority.server.key, key)
        key.chmod(mode)
        with pytest.raises(TlsFileError, match=f"mode 0{mode:o}: chmod it to 0600"):
            server_context(authority.server.certificate, key)

    def test_expired(self, authority: Authority) -> None:
        """A certificate that has expired is refused, on either side."""
        pair = authority.issue("old", HOST, is_expired=True)
        with pytest.raises(TlsFileError, match=r"old\.pem .*certificate has expired"):
            server_context(pair.certificate, pair.key)
        with pytest.raises(TlsFileError, match=r"old\.pem .*certificate has expired"):
            client_context(authority.ca, pair.certificate, pair.key)


def _server(_: Path, pair: Pair) -> ssl.SSLContext:
    return server_context(pair.certificate, pair.key)


def _client(ca: Path, pair: Pair) -> ssl.SSLContext:
    return client_context(ca, pair.certificate, pair.key)


class TestReload:
    """Files that change while a program runs."""

    def test_good_files_take_the_place(
        self, authority: Authority, tmp_path: Path
    ) -> None:
        """What is read again is new; what cannot be read leaves both as they were."""
        pair = authority.issue("changing", HOST)
        files = TlsFiles(pair.certificate, pair.key, None, authority.ca)
        certificates = Certificates.load(files)
        before = certificates.server, certificates.client
        assert None not in before
        certificates.reload()
        now = certificates.server, certificates.client
        assert not set(now) & set(before)
        pair.key.rename(tmp_path / "away.key")
        with pytest.raises(TlsFileError):
            certificates.reload()
        assert (certificates.server, certificates.client) == now

    @pytest.mark.parametrize(
        "change", [Path.unlink, lambda file: file.write_bytes(b"")]
    )
    @pytest.mark.parametrize("step", ["_check_secrecy", "_trust_itself"])
    @pytest.mark.parametrize("make", [_server, _client])
    def test_a_file_that_changes_meanwhile(
        self,
        authority: Authority,
        monkeypatch: pytest.MonkeyPatch,
        change: Callable[[Path], object],
        step: str,
        make: Callable[[Path, Pair], object],
    ) -> None:
        """A file that was good, and is not when it is read again, is no file to use."""
        pair = authority.issue("written", HOST)
        load = getattr(tls, step)

        def load_later(*words: object) -> None:
            change(pair.certificate)
            load(*words)

        monkeypatch.setattr(tls, step, load_later)
        with pytest.raises(TlsFileError, match=r"written\.pem"):
            make(authority.ca, pair)
