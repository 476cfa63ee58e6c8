"""Attention of ragged rows over slots, against one row at a time."""

from __future__ import annotations

import pytest
import torch
from atlasd_kernels.gpu import attention
from atlasd_kernels.gpu.attention import SPLITS, Units, split_size, unit_rows


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def ints(values: list[int]) -> torch.Tensor:
    return torch.tensor(values, dtype=torch.int32)


def run(
    query: torch.Tensor,
    cache: tuple[torch.Tensor, torch.Tensor],
    parts: list[tuple[int, int, int]],
    *,
    window: int | None = None,
    tiles: int = 4,
    whole: bool = False,
    padding: int = 0,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Attend with units (slot, first position, rows); what came out, and the reference."""
    rows = sum(part[2] for part in parts)
    heads, dim = query.shape[1:]
    slots, positions, firsts = [], [], []
    for slot, position, count in parts:
        firsts.append(len(slots))
        slots += [slot] * count
        positions += range(position, position + count)
    units = Units(
        ints([p[0] for p in parts] + [0]), ints([*firsts, 0]), ints([p[2] for p in parts] + [0])
    )
    count = rows + padding
    padded = ints(positions + [-1] * padding)
    out = torch.full((count, heads, dim), torch.nan)
    sums = torch.full((count, heads, SPLITS, dim), torch.nan)
    stats = torch.full((count, heads, SPLITS, 2), torch.nan)
    attention.attend(
        query[:count], *cache, units, padded, out, sums, stats, count=count,
        unit_limit=len(parts) + 1, tiles=tiles, window=window, whole=whole,
        splits=max(p // split_size(p) for p in positions) + 1,
    )  # fmt: skip
    expected = attention.reference(query[:rows], *cache, ints(slots), ints(positions), window)
    return out, expected


@pytest.mark.parametrize(
    ("heads", "kv_heads", "dim", "window", "whole"),
    [
        (6, 2, 32, None, False),
        (6, 2, 32, 200, False),
        (7, 1, 48, 40, False),
        (7, 1, 48, None, True),
        (6, 2, 32, 40, True),
    ],
)
def test_every_row_attends_to_what_it_may_see(heads, kv_heads, dim, window, whole) -> None:
    query = random(40, heads, dim)
    cache = random(3, kv_heads, 320, dim, seed=1), random(3, kv_heads, 320, dim, seed=2)
    parts = [(0, 0, 1), (2, 130, 5), (1, 250, unit_rows(heads // kv_heads)), (2, 0, 3)]
    out, expected = run(query, cache, parts, window=window, whole=whole)
    torch.testing.assert_close(out, expected, atol=2e-5, rtol=1e-4)


def test_padding_comes_out_as_zeros() -> None:
    cache = random(1, 2, 128, 32, seed=1), random(1, 2, 128, 32, seed=2)
    out, expected = run(random(8, 4, 32), cache, [(0, 70, 3)], padding=2)
    torch.testing.assert_close(out[:3], expected, atol=2e-5, rtol=1e-4)
    assert (out[3:] == 0).all()


@pytest.mark.parametrize("window", [None, 100])
def test_a_rows_bits_do_not_depend_on_its_neighbours(window) -> None:
    query = random(12, 4, 32)
    cache = random(2, 2, 320, 32, seed=1), random(2, 2, 320, 32, seed=2)
    together, _ = run(query, cache, [(0, 255, 8), (1, 17, 4)], window=window)
    for row in (0, 3, 7):
        alone, _ = run(query[row:], cache, [(0, 255 + row, 1)], window=window, tiles=1)
        assert torch.equal(alone[0], together[row])


def test_what_lies_after_a_row_changes_nothing() -> None:
    query, keys, values = random(2, 4, 32), random(1, 2, 192, 32), random(1, 2, 192, 32, seed=1)
    before, _ = run(query, (keys, values), [(0, 90, 2)])
    keys[:, :, 92:] = torch.nan
    values[:, :, 92:] = torch.inf
    after, _ = run(query, (keys, values), [(0, 90, 2)])
    assert torch.equal(before, after)


def test_long_contexts_take_longer_splits() -> None:
    assert [split_size(p) for p in (0, 4095, 4096, 8192, 32767)] == [128, 128, 256, 512, 1024]
    assert max(p // split_size(p) for p in range(40_000)) == SPLITS - 1
    query = random(2, 2, 16)
    cache = random(1, 1, 4224, 16, seed=1), random(1, 1, 4224, 16, seed=2)
    for position in (4095, 4096):
        out, expected = run(query, cache, [(0, position, 1)], tiles=1)
        torch.testing.assert_close(out, expected, atol=2e-5, rtol=1e-4)


def test_a_group_that_no_unit_holds_is_refused() -> None:
    assert unit_rows(7) == 9
    with pytest.raises(ValueError, match="more than a unit"):
        unit_rows(65)
