"""The audit of dependencies finds what it is there to find."""

import base64
import hashlib
from importlib.metadata import Distribution
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from tests.audit import check_bound, check_files, check_licence, findings, read_pins


def installed(place: Path, licence: str) -> Distribution:
    """Make a distribution of one file."""
    file, info = place / "it.py", place / "it-1.dist-info"
    file.write_text("pass")
    info.mkdir()
    (info / "METADATA").write_text(f"Name: it\nVersion: 1\n{licence}\n")
    digest = base64.urlsafe_b64encode(hashlib.sha256(b"pass").digest())
    (info / "RECORD").write_text(f"it.py,sha256={digest.decode().rstrip('=')},4\n")
    return Distribution.at(info)


def test_what_is_installed_is_what_was_chosen() -> None:
    """This very environment passes."""
    assert list(findings()) == []


@pytest.mark.parametrize(
    ("text", "is_bound"), [("it>=2", True), ("it>=2,<3", True), ("it<3", False)]
)
def test_a_lower_bound(text: str, *, is_bound: bool) -> None:
    """A dependency has one, or is found."""
    assert (not list(check_bound(Requirement(text)))) is is_bound


@pytest.mark.parametrize(
    ("licence", "is_allowed"),
    [
        ("License-Expression: MIT", True),
        ("Classifier: License :: OSI Approved :: BSD License", True),
        ("License-Expression: AGPL-3.0-only", False),
        ("Summary: it", False),
    ],
)
def test_a_licence(tmp_path: Path, licence: str, *, is_allowed: bool) -> None:
    """A licence is on the list, or is found."""
    found = installed(tmp_path, licence)
    assert (not list(check_licence("it", found))) is is_allowed


def test_a_file(tmp_path: Path) -> None:
    """A file that was changed or removed is found."""
    found = installed(tmp_path, "License: MIT")
    assert list(check_files("it", found)) == []
    (tmp_path / "it.py").write_text("evil")
    assert list(check_files("it", found)) == ["it: it.py was changed"]
    (tmp_path / "it.py").unlink()
    assert list(check_files("it", found)) == ["it: it.py is missing"]


def test_pins() -> None:
    """Names are compared as registries do, and markers set aside."""
    text = "My_Lib==1.2\nother==3; python_version < '3.12'\n"
    assert read_pins(text) == {"my-lib": "1.2", "other": "3"}
