"""Which number format ``auto`` picks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from atlasd.models.config import ModelConfig, read_config
from atlasd.models.load import fitting_format
from atlasd.models.locate import find_model

GIB = 1 << 30


@pytest.fixture(scope="module")
def config() -> ModelConfig:
    return replace(read_config(find_model("bundled")), dtype="bfloat16")


SEVEN_BILLION = {
    "vocab_size": 152_064,
    "hidden_size": 3584,
    "layers": 28,
    "heads": 28,
    "kv_heads": 4,
    "head_dim": 128,
    "intermediate_size": 18_944,
    "tied": False,
}


def test_small_models_keep_their_own_format(config: ModelConfig) -> None:
    assert fitting_format(config, GIB) == "bf16"
    assert fitting_format(replace(config, dtype="float32"), GIB) == "fp32"


@pytest.mark.parametrize(
    ("budget", "expected"), [(32, "bf16"), (16, "int8"), (8, "int4"), (2, "int4")]
)
def test_large_models_get_the_best_format_that_fits(
    config: ModelConfig, budget: int, expected: str
) -> None:
    large = replace(config, **SEVEN_BILLION)
    assert 7.5e9 < large.parameters < 7.7e9
    assert fitting_format(large, budget * GIB) == expected
