"""For all tests: what hypothesis tries is the same at every run, unless told otherwise.

``HYPOTHESIS_PROFILE=explore`` tries other examples at every run, and more of them.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# A loaded machine is slow to draw examples; that says nothing about the code.
SLOW = [HealthCheck.too_slow]
settings.register_profile("same", derandomize=True, deadline=None, suppress_health_check=SLOW)
settings.register_profile("explore", max_examples=500, deadline=None, suppress_health_check=SLOW)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))
