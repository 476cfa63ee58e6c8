"""Kernels are tested where the native library is built; the reason is shown where it is not."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
from atlasd_kernels.cpu import CpuDecoder, available, instruction_sets
from atlasd_kernels.spec import DecoderSpec

from tests.kernels.checkpoints import make_model, spec_of, tensors_of

FORMATS = ["fp32", "bf16", "int8", "int4"]
ISAS = instruction_sets() if available()[0] else ["none"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    usable, reason = available()
    for item in items:
        if not usable and "tests/kernels" in str(item.path):
            item.add_marker(pytest.mark.skip(reason=reason))


@pytest.fixture
def make_decoder() -> Iterator[Callable[..., CpuDecoder]]:
    """CpuDecoder of a random model of a family; closed after the test."""
    made: list[CpuDecoder] = []

    def make(family: str = "qwen2", **options: Any) -> CpuDecoder:
        spec, tensors = checkpoint(family)
        defaults: dict[str, Any] = {"slots": 3, "slot_tokens": 320, "threads": 1}
        decoder = CpuDecoder(spec, tensors, **{**defaults, **options})
        made.append(decoder)
        return decoder

    yield make
    for decoder in made:
        decoder.close()


CHECKPOINTS: dict[str, tuple[DecoderSpec, dict[str, np.ndarray]]] = {}


def checkpoint(family: str) -> tuple[DecoderSpec, dict[str, np.ndarray]]:
    if family not in CHECKPOINTS:
        model = make_model(family)
        CHECKPOINTS[family] = spec_of(model), tensors_of(model)
    return CHECKPOINTS[family]
