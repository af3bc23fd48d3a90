"""A tab of a browser: one page, what is done to it and what is seen of it."""

import base64
import contextlib
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attrs

from tests.browser import Browser, BrowserError, Message
from tests.process import SECONDS_MAX

KEYS: dict[str, Message] = {
    "Tab": {"code": "Tab", "windowsVirtualKeyCode": 9},
    "Enter": {"code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"},
    " ": {"code": "Space", "windowsVirtualKeyCode": 32, "text": " "},
}
DOMAINS = ("Page", "Runtime", "Network", "Log")
WIDTH, HEIGHT = 1280, 900
_POLL_SECONDS = 0.02


class ScriptError(Exception):
    """An expression has failed in the page."""


@attrs.define(eq=False)
class Tab:
    """One page, in a profile of its own; `events` are what the browser told of it."""

    browser: Browser
    session: str
    events: list[Message] = attrs.Factory(list)

    def ask(self, method: str, **parameters: Any) -> Any:  # noqa: ANN401 - as Browser's
        """Send a command that is about this page."""
        return self.browser.ask(method, parameters, self.session)

    def run(self, expression: str) -> Any:  # noqa: ANN401 - whatever it is
        """Give what an expression of JavaScript is, awaited; raises ScriptError."""
        done = self.ask(
            "Runtime.evaluate",
            expression=expression,
            awaitPromise=True,
            returnByValue=True,
        )
        if "exceptionDetails" in done:
            raise ScriptError(f"{expression}: {done['exceptionDetails']}")
        return done["result"].get("value")

    def wait(self, expression: str) -> Any:  # noqa: ANN401 - whatever it is
        """Wait until an expression is true; give what it is then."""
        deadline = time.monotonic() + SECONDS_MAX
        while True:
            # A page that is being left answers with an error.
            with contextlib.suppress(BrowserError):
                if value := self.run(expression):
                    return value
                seen = self.run("document.body?.innerText")
                assert time.monotonic() < deadline, f"in vain: {expression}\n{seen}"
            time.sleep(_POLL_SECONDS)

    def text(self, selector: str) -> str:
        """Give an element's text."""
        found: str = self.run(f"document.querySelector('{selector}').textContent")
        return found

    def go(self, url: str) -> None:
        """Go to an address, and wait until it is loaded."""
        self.ask("Page.navigate", url=url)
        is_there = f"location.href === {json.dumps(url)}"
        self.wait(f"{is_there} && document.readyState === 'complete'")

    def reload(self) -> None:
        """Load the page anew, and wait until that is done."""
        self.run("globalThis.isOld = true")
        self.ask("Page.reload")
        self.wait("!globalThis.isOld && document.readyState === 'complete'")

    def resize(self, width: int, height: int) -> None:
        """Make the window this large, in CSS pixels."""
        self.ask(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=False,
        )

    def prefer_colours(self, scheme: str) -> None:
        """Have the system's colours `light` or `dark`."""
        feature = {"name": "prefers-color-scheme", "value": scheme}
        self.ask("Emulation.setEmulatedMedia", features=[feature])

    def press(self, key: str) -> None:
        """Press a key, one of `KEYS`."""
        for kind in ("keyDown", "keyUp"):
            more = KEYS[key] if kind == "keyDown" else {**KEYS[key], "text": ""}
            self.ask("Input.dispatchKeyEvent", type=kind, key=key, **more)

    def click(self, selector: str) -> None:
        """Click the middle of an element with the mouse."""
        for kind in ("mousePressed", "mouseReleased"):
            place = {**self.middle(selector), "button": "left", "clickCount": 1}
            self.ask("Input.dispatchMouseEvent", type=kind, **place)

    def point(self, selector: str) -> None:
        """Move the mouse to the middle of an element."""
        place = self.middle(selector)
        self.ask("Input.dispatchMouseEvent", type="mouseMoved", **place)

    def middle(self, selector: str) -> dict[str, float]:
        """Scroll to an element; give where its middle is in the window."""
        element = f"document.querySelector('{selector}')"
        self.run(f"{element}.scrollIntoView({{block: 'center'}})")
        box = self.run(f"{element}.getBoundingClientRect().toJSON()")
        return {"x": box["x"] + box["width"] / 2, "y": box["y"] + box["height"] / 2}

    def picture(self, file: Path) -> None:
        """Write what is seen as a PNG file."""
        data = self.ask("Page.captureScreenshot", format="png")["data"]
        file.write_bytes(base64.b64decode(data))

    def heard(self, method: str) -> list[Message]:
        """Give what the browser has told of this page under a name, so far."""
        self.run("0")
        told = self.browser.told
        self.events += [each for each in told if each.get("sessionId") == self.session]
        told.clear()
        return [each["params"] for each in self.events if each.get("method") == method]


@contextlib.contextmanager
def opened(browser: Browser, url: str) -> Iterator[Tab]:
    """Give a tab that nobody has used before, at an address; close it afterwards."""
    context = browser.ask("Target.createBrowserContext", {})["browserContextId"]
    blank = {"url": "about:blank", "browserContextId": context}
    target = browser.ask("Target.createTarget", blank)["targetId"]
    attached = browser.ask(
        "Target.attachToTarget", {"targetId": target, "flatten": True}
    )
    tab = Tab(browser, attached["sessionId"])
    try:
        for domain in DOMAINS:
            tab.ask(f"{domain}.enable")
        tab.resize(WIDTH, HEIGHT)
        tab.go(url)
        yield tab
    finally:
        browser.ask("Target.disposeBrowserContext", {"browserContextId": context})
