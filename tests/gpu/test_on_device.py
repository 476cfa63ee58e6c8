"""On a GPU: rows independent of each other in every format, logits of transformers, graphs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

pytest.importorskip("triton")

from atlasd.models.load import LoadOptions
from atlasd.models.locate import find_model
from tests.engine.models_checkpoints import random_model, random_tokens, save
from tests.gpu.values import accept_values, choice_values, drafting_changes_nothing, matmul_values

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.timeout(600),
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]


def test_every_kernel_gives_a_row_its_bits_whatever_is_beside_it() -> None:
    from bench.gpu_rows import check_kernels

    tallies = check_kernels(steps=8)
    assert sum(tally.cases for tally in tallies) > 5000
    assert [tally for tally in tallies if tally.differing] == []


@pytest.mark.parametrize("family", ["llama 3", "qwen2 tied", "qwen2 sliding", "qwen3", "mistral"])
def test_logits_are_those_of_transformers(family: str, tmp_path: Path) -> None:
    from atlasd.models.config import read_config
    from atlasd.models.cuda_load import load_cuda

    model = random_model(family, head_dim=32, hidden_size=192)
    files = find_model(str(save(model, tmp_path)))
    options = LoadOptions(slots=3, slot_tokens=256)
    decoder, kind = load_cuda(files, read_config(files), options)
    assert kind == "fp32"
    assert decoder.graphs.reason == ""
    tokens, rows = random_tokens(150), np.arange(140, dtype=np.int32)
    with torch.no_grad():
        expected = model(torch.from_numpy(tokens)[None].long()).logits[0].numpy()
    wanted = np.array([70, 139], np.int32)
    first = decoder.forward(tokens[:140], rows * 0 + 1, rows, wanted, prefill=True)
    np.testing.assert_allclose(first, expected[wanted], atol=2e-3, rtol=1e-2)
    rows = np.arange(10, dtype=np.int32)
    second = decoder.forward(tokens[140:], rows * 0 + 1, rows + 140, rows)
    np.testing.assert_allclose(second, expected[140:], atol=2e-3, rtol=1e-2)
    decoder.close()


@pytest.mark.parametrize("kind", ["bf16", "fp8", "int8", "int4", "nvfp4"])
def test_drafted_rows_have_the_bits_of_plain_ones(kind: str) -> None:
    from bench.gpu_rows import check_decoder
    from bench.gpu_timing import small_decoder

    decoder = small_decoder(kind)
    tally = check_decoder(decoder, 1)
    assert tally.cases >= 48
    assert tally.differing == 0
    decoder.close()


@pytest.mark.parametrize("kind", ["bf16", "fp8", "int8", "int4", "nvfp4"])
@pytest.mark.parametrize(("count", "prefill"), [(1, False), (20, False), (64, False), (200, True)])
def test_matmuls_are_those_of_the_dequantised_weights(kind: str, count: int, prefill: bool) -> None:
    # In shapes that gpu_check has compiled for.
    matmul_values(kind, count, 8960, 1280, "cuda", prefill=prefill)  # type: ignore[arg-type]


def test_tokens_are_those_of_the_sampler_bit_for_bit() -> None:
    choice_values(152_064, "cuda")


def test_a_draft_is_accepted_up_to_the_first_that_differs() -> None:
    accept_values("cuda")


@pytest.mark.parametrize("kind", ["bf16", "fp8", "int8", "int4", "nvfp4"])
def test_drafting_changes_no_token(kind: str) -> None:
    from bench.gpu_timing import small_decoder

    decoder = small_decoder(kind)
    assert decoder.graphs.reason == ""
    drafting_changes_nothing(decoder, random_tokens(10, seed=3).tolist(), 100)
    decoder.close()
