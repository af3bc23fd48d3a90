"""How Hypothesis runs here: as for our other tests, which assert no times either."""

from hypothesis import settings

settings.register_profile("default", settings.get_profile("default"), deadline=None)
