"""bench/identity.py on a few cases; the lead runs all of 500 per format."""

from __future__ import annotations

import pytest
from atlasd_kernels import cpu

from atlasd.models.locate import find_model
from bench.identity import measure


@pytest.mark.skipif(not cpu.available()[0], reason="the CPU kernels do not load here")
def test_drafting_changes_no_token_in_any_weight_format() -> None:
    found = measure(find_model("bundled"), ("fp32", "bf16", "int8", "int4"), cases=2)
    for weight_format, tally in found.items():
        assert tally.different == 0, weight_format
        assert tally.accepted > 0, weight_format
        assert tally.rejected > 0, weight_format
