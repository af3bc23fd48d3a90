"""How Hypothesis runs here, the browser that tests share, and what Ctrl-C does.

Hypothesis runs as usual, under CI as it does by itself, or at length.

`ALPHABET_SOAK` in the environment (`make soak`) asks for the long run. Tests that
loop on their own read the same variable.
"""

import os
import signal
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, Phase, settings

from tests.browser import Browser, browsing

# A shell that starts tests in the background has Ctrl-C and Ctrl-\ ignored, by all that
# they start too; tests send both to those, and they are to end them.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGQUIT, signal.SIG_DFL)

# A slow moment of the machine is no failure of ours: tests assert no times.
settings.register_profile("default", settings.get_profile("default"), deadline=None)

# For `make mutants`, where it matters that a test fails, and not how simply.
settings.register_profile(
    "unshrunk",
    settings.get_profile("ci"),
    phases=[Phase.explicit, Phase.generate],
)

settings.register_profile(
    "soak",
    settings.get_profile("default"),
    max_examples=2_000,
    stateful_step_count=200,
    print_blob=True,
    suppress_health_check=[HealthCheck.too_slow],
)
if os.environ.get("ALPHABET_SOAK"):
    settings.load_profile("soak")


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    """Give a browser, started for the first test that asks; tabs share nothing."""
    with browsing(tmp_path_factory.mktemp("browser")) as browser:
        yield browser
