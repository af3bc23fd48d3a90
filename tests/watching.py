"""A server's page in a browser, held to asking nobody else and to raising nothing."""

import contextlib
from collections.abc import Iterator

from tests.browser import Browser
from tests.process import Server
from tests.tab import Tab, opened
from tests.test_page import port_of

AWAY = ("ERR_CONNECTION_REFUSED", "ERR_INCOMPLETE_CHUNKED", "ERR_CONNECTION_RESET")
"""What the console says of a server that has ended, as some tests have it."""


@contextlib.contextmanager
def watching(browser: Browser, server: Server) -> Iterator[Tab]:
    """Open a server's page.

    Fails in the end if the page broke its policy, printed, raised or met an error, or
    if it has asked for anything elsewhere.
    """
    host = f"127.0.0.1:{port_of(server)}"
    with opened(browser, f"http://{host}/") as tab:
        tab.wait("document.querySelector('#word').textContent !== 'Connecting'")
        yield tab
        assert faults(tab) == []
        hosts = {url.split("/")[2] for url in asked(tab)}
        assert hosts == {host}


def asked(tab: Tab) -> list[str]:
    """Give the addresses of all that the page has asked a network for."""
    told = tab.heard("Network.requestWillBeSent")
    addresses = [each["request"]["url"] for each in told]
    return [url for url in addresses if not url.startswith("data:")]


def faults(tab: Tab) -> list[str]:
    """Give what the browser says went wrong, but for a server that is away."""
    thrown = tab.heard("Runtime.exceptionThrown")
    told = [
        *(str(each["exceptionDetails"]) for each in thrown),
        *(str(each["args"]) for each in tab.heard("Runtime.consoleAPICalled")),
        *(each["entry"]["text"] for each in tab.heard("Log.entryAdded")),
    ]
    return [text for text in told if not any(each in text for each in AWAY)]
