"""What the GPU decoder decides on the host: units, buckets, the memory plan."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("triton")

from atlasd_kernels.gpu.attention import split_size, unit_rows
from atlasd_kernels.gpu.tiling import decode_tiling, tiles_for

from atlasd.errors import ModelError
from atlasd.models.config import config_from_json
from atlasd.models.cuda_budget import plan, scratch_bytes
from atlasd.models.cuda_layout import (
    BUCKETS,
    FIELDS,
    attention_tiles,
    bucket_for,
    clear,
    cut_units,
    lay_out,
)
from atlasd.models.cuda_step import Inputs

CONFIG = config_from_json(
    "tiny",
    {
        "architectures": ["Qwen2ForCausalLM"],
        "num_hidden_layers": 28,
        "hidden_size": 3584,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "intermediate_size": 18944,
        "vocab_size": 152_064,
        "max_position_embeddings": 32_768,
        "torch_dtype": "bfloat16",
    },
)
PARTS = st.lists(
    st.tuples(st.integers(0, 3), st.integers(0, 9000), st.integers(1, 20)), min_size=1, max_size=8
)


@given(PARTS, st.sampled_from([1, 4, 6, 7, 16]), st.sampled_from([1, 2, 4]))
def test_units_hold_every_row_once_and_agree_on_their_splits(parts, group, tiles) -> None:
    slots = np.concatenate([np.full(n, slot) for slot, _, n in parts]).astype(np.int32)
    positions = np.concatenate([np.arange(at, at + n) for _, at, n in parts]).astype(np.int32)
    units = cut_units(slots, positions, group, tiles)
    assert [row for u in units for row in range(u.first, u.first + u.rows)] == [*range(len(slots))]
    for unit in units:
        rows = range(unit.first, unit.first + unit.rows)
        assert unit.rows <= unit_rows(group, tiles)
        assert {int(slots[row]) for row in rows} == {unit.slot}
        assert len({split_size(int(positions[row])) for row in rows}) == 1
        assert all(positions[row] == positions[unit.first] + row - unit.first for row in rows)


def test_padding_belongs_to_no_slot_and_to_no_unit() -> None:
    into = np.full((len(FIELDS), 8), 99, np.int32)
    clear(into)
    row = np.arange(3, dtype=np.int32)
    units = lay_out(into, row + 5, row * 0 + 1, row + 10, row[1:], 7, 2)
    assert units == 1
    assert into[0].tolist() == [5, 6, 7, 0, 0, 0, 0, 0]
    assert into[1].tolist() == [1, 1, 1, -1, -1, -1, -1, -1]
    assert into[2].tolist() == [10, 11, 12, -1, -1, -1, -1, -1]
    assert into[5].tolist() == [3, 0, 0, 0, 0, 0, 0, 0]
    assert into[6].tolist() == [1, 2, 0, 0, 0, 0, 0, 0]
    assert not into[7:].any()


def test_the_array_that_is_on_its_way_is_not_written() -> None:
    inputs = Inputs(4, torch.device("cpu"))
    for step in range(3):
        on_its_way = inputs.array
        assert on_its_way[1].tolist() == [-1] * 4
        on_its_way[:] = step + 5
        inputs.send()
        inputs.prepare()
        assert inputs.array is not on_its_way
        inputs.array[0] = 77
        assert (on_its_way == step + 5).all()
        assert (inputs["tokens"] == step + 5).all()
        inputs.array[0] = 0


def test_rows_are_padded_to_buckets() -> None:
    given = [bucket_for(n) for n in (0, 1, 2, 3, 9, 33, 64, 65, 130)]
    assert given == [0, 1, 2, 4, 16, 64, 64, 65, 130]
    assert [attention_tiles(b, 7) for b in BUCKETS] == [1, 1, 2, 4, 4, 4, 4]
    assert [tiles_for(n) for n in (1, 16, 17, 33, 64)] == [1, 1, 2, 4, 4]


@pytest.mark.parametrize("kind", ["fp32", "bf16", "fp8", "int8", "int4", "nvfp4"])
@pytest.mark.parametrize(("n", "k"), [(512, 256), (4608, 3584), (3584, 18944), (152_064, 3584)])
def test_splits_cover_the_columns(kind: str, n: int, k: int) -> None:
    tiling = decode_tiling(n, k, kind, whole=False)
    blocks = -(-k // tiling.block_k)
    assert tiling.per_split(k) * tiling.splits >= blocks
    # The last split has something to do, so its sums are written.
    assert tiling.per_split(k) * (tiling.splits - 1) < blocks
    assert decode_tiling(n, k, kind, whole=True).splits == 1


def test_the_memory_is_divided_before_it_is_taken() -> None:
    budget = plan("model", CONFIG, "bf16", 70 << 30)
    assert budget.slots.slots == 16
    assert 15e9 < budget.weights < 15.5e9
    assert budget.scratch == scratch_bytes(CONFIG, "bf16", CONFIG.max_positions)
    small = plan("model", CONFIG, "nvfp4", 8 << 30)
    assert 1 <= small.slots.slots <= 16
    with pytest.raises(ModelError, match="needs"):
        plan("model", CONFIG, "bf16", 8 << 30)
