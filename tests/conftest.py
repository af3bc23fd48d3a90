"""How Hypothesis runs here: as usual, under CI as it does by itself, or at length.

`ALPHABET_SOAK` in the environment (`make soak`) asks for the long run. Tests that
loop on their own read the same variable.
"""

import os

from hypothesis import HealthCheck, Phase, settings

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
