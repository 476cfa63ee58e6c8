"""For all tests: what hypothesis tries is the same at every run, unless told otherwise, and nothing
is written into the home of whoever runs them.

``HYPOTHESIS_PROFILE=explore`` tries other examples at every run, and more of them.
"""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest
from hypothesis import HealthCheck, settings

# A loaded machine is slow to draw examples; that says nothing about the code.
SLOW = [HealthCheck.too_slow]
settings.register_profile("same", derandomize=True, deadline=None, suppress_health_check=SLOW)
settings.register_profile("explore", max_examples=500, deadline=None, suppress_health_check=SLOW)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


@pytest.fixture(scope="session", autouse=True)
def a_home_of_their_own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Engines in processes of their own keep weights and indices in the cache folder."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATLASD_HOME", str(tmp_path_factory.mktemp("atlasd-home")))
        yield
