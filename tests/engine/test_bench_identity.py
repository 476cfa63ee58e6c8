"""bench/identity.py on a few cases; the lead runs all of 500 per format."""

from __future__ import annotations

import pytest
from atlasd_kernels import cpu

from bench.identity import measure


@pytest.mark.skipif(not cpu.available()[0], reason="the CPU kernels do not load here")
def test_drafting_changes_no_token_in_any_weight_format() -> None:
    found = measure(None, ("fp32", "bf16", "int8", "int4"), cases=2)
    for weight_format, tally in found.items():
        assert tally.different == 0, weight_format
        assert 0 < tally.accepted.total() < tally.drafted.total(), weight_format
