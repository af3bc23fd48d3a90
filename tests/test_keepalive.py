"""A peer that vanished is noticed within a minute, on every connection that stays."""

import re
import socket
from pathlib import Path

import pytest

from alphabet.network.keepalive import (
    ANSWERS_MISSED_MAX,
    IDLE_SECONDS,
    INTERVAL_SECONDS,
    keep_alive,
)
from tests.process import ROOT

SHELLS = ["source/connection", "network/dialing", "receiving/connector_listener"]
"""The modules that accept connections, or make them."""


def test_it_takes_a_minute() -> None:
    """The system asks, and asks again, and gives up within a minute."""
    assert IDLE_SECONDS + ANSWERS_MISSED_MAX * INTERVAL_SECONDS == 60
    with socket.socket() as connection:
        keep_alive(connection)
        assert connection.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
        found = [
            connection.getsockopt(socket.IPPROTO_TCP, option)
            for option in (
                socket.TCP_KEEPIDLE,
                socket.TCP_KEEPINTVL,
                socket.TCP_KEEPCNT,
            )
        ]
    assert found == [IDLE_SECONDS, INTERVAL_SECONDS, ANSWERS_MISSED_MAX]


def test_one_that_has_ended() -> None:
    """A connection that is gone by then is no failure."""
    connection = socket.socket()
    connection.close()
    keep_alive(connection)


@pytest.mark.parametrize("name", SHELLS)
def test_every_connection_has_it(name: str) -> None:
    """Whoever accepts or connects asks for it, once for each place where it does."""
    code = Path(ROOT / "alphabet" / f"{name}.py").read_text(encoding="utf-8")
    begun = re.findall(r"\.accept\(\)|create_connection\(", code)
    assert len(re.findall(r"\bkeep_alive\(", code)) == len(begun) == 1
