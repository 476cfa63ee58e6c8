"""Matmul of every format against torch, with rows, splits, gathers and epilogues."""

from __future__ import annotations

import pytest
import torch
from atlasd_kernels.gpu import matmul
from atlasd_kernels.gpu.formats import FORMATS, interleave, quantise
from atlasd_kernels.gpu.tiling import Tiling, decode_tiling, prefill_tiling

from tests.gpu.values import matmul_values


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", ["fp8", "nvfp4"])
def test_values_are_those_that_the_device_is_asked_for(kind) -> None:
    matmul_values(kind, 3, 40, 512, "cpu")


@pytest.mark.parametrize("kind", FORMATS)
@pytest.mark.parametrize(("count", "n", "k"), [(1, 70, 512), (40, 33, 300)])
def test_a_matmul_is_that_of_the_dequantised_weights(kind, count, n, k) -> None:
    weight = quantise(random(n, k) * 0.1, kind)
    x = random(count, k, seed=1)
    tiling = decode_tiling(n, k, kind, whole=True)
    out = torch.full((1, count, n), torch.nan)
    matmul.matmul(x, weight, out, tiling, count=count)
    torch.testing.assert_close(out[0], matmul.reference(x, weight), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", FORMATS)
def test_splits_hold_partial_sums_in_order(kind) -> None:
    weight, x = quantise(random(48, 1024) * 0.1, kind), random(5, 1024, seed=1)
    block = 256 if kind in ("int4", "nvfp4") else 128
    out = torch.full((4, 5, 48), torch.nan)
    matmul.matmul(x, weight, out, Tiling(32, block, 4), count=5)
    torch.testing.assert_close(out.sum(0), matmul.reference(x, weight), atol=5e-5, rtol=1e-5)
    values = matmul.dequantise(weight)
    for split in range(4):
        part = slice(256 * split, 256 * split + 256)
        torch.testing.assert_close(out[split], x[:, part] @ values[:, part].t(), atol=2e-5, rtol=0)


@pytest.mark.parametrize("kind", ["bf16", "int4"])
def test_the_epilogue_norms_gates_and_reads_rows_where_they_are(kind) -> None:
    weight = quantise(interleave(random(40, 256), random(40, 256, seed=2)), kind)
    x, rows = random(9, 256, seed=1), torch.tensor([7, 0, 3], dtype=torch.int32)
    norm = (random(9, 3, seed=3).abs() * 200, 256, 1e-6)
    out = torch.full((3, 40), torch.nan)
    tiling = decode_tiling(80, 256, kind, whole=True)
    matmul.matmul(x, weight, out, tiling, count=3, norm=norm, silu=True, rows=rows)
    expected = matmul.reference_silu(x[rows.long()], weight, (norm[0][rows.long()], *norm[1:]))
    torch.testing.assert_close(out, expected, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("kind", FORMATS)
def test_prefill_blocks_agree_with_decoding(kind) -> None:
    weight, x = quantise(random(64, 256) * 0.1, kind), random(130, 256, seed=1)
    out = torch.full((1, 130, 64), torch.nan)
    matmul.matmul(x, weight, out, prefill_tiling(kind), count=130)
    torch.testing.assert_close(out[0], matmul.reference(x, weight), atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("kind", FORMATS)
def test_rows_do_not_see_each_other(kind) -> None:
    weight, x = quantise(random(32, 256) * 0.1, kind), random(33, 256, seed=1)
    x[4] = torch.nan
    out = torch.full((2, 33, 32), torch.nan)
    tiling = Tiling(32, 256 if kind in ("int4", "nvfp4") else 128, 1)
    matmul.matmul(x, weight, out, tiling, count=33)
    alone = torch.empty(1, 1, 32)
    for row in (0, 3, 5, 16, 32):
        matmul.matmul(x[row : row + 1], weight, alone, tiling, count=1)
        assert torch.equal(alone[0, 0], out[0, row])


def test_a_split_without_columns_is_refused() -> None:
    weight = quantise(random(32, 1280), "int4")
    with pytest.raises(ValueError, match="without columns"):
        matmul.matmul(random(1, 1280), weight, torch.empty(4, 1, 32), Tiling(32, 256, 4), count=1)


def test_an_epilogue_refuses_splits() -> None:
    weight = quantise(random(64, 256), "bf16")
    with pytest.raises(ValueError, match="whole sum"):
        matmul.matmul(
            random(1, 256), weight, torch.empty(1, 32), Tiling(32, 128, 2), count=1, silu=True
        )
