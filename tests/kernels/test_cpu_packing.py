"""Packed weights on disk: shared, verified, rebuilt when damaged."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from atlasd_kernels.cpu import CpuDecoder

from tests.kernels.conftest import FORMATS, checkpoint
from tests.kernels.rounding import rounded


class Refusing(dict[str, Any]):
    """Tensors that must not be read: the cache has everything."""

    def __getitem__(self, name: str) -> Any:
        raise AssertionError(f"{name} was read")


def load(tensors: Mapping[str, Any], folder: Path, weight_format: Any = "bf16") -> CpuDecoder:
    spec, _ = checkpoint("qwen2")
    return CpuDecoder(
        spec,
        tensors,
        weight_format=weight_format,
        slot_tokens=64,
        threads=1,
        cache_dir=folder,
        identity="a checkpoint",
    )


def logits(decoder: CpuDecoder) -> np.ndarray:
    rows = np.arange(20, dtype=np.int32)
    return decoder.forward(rows + 3, rows * 0, rows, rows).copy()


@pytest.mark.parametrize("weight_format", FORMATS)
def test_the_second_load_reads_no_tensor(weight_format: str, tmp_path: Path) -> None:
    _, tensors = checkpoint("qwen2")
    first = logits(load(tensors, tmp_path, weight_format))
    (kept,) = tmp_path.iterdir()
    os.utime(kept, (1, 1))
    assert np.array_equal(first, logits(load(Refusing(), tmp_path, weight_format)))
    assert len(list(tmp_path.iterdir())) == 1
    assert kept.stat().st_mtime > 1, "when it was opened last is not known"


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "header", "longer"])
def test_a_damaged_file_is_packed_again(damage: str, tmp_path: Path) -> None:
    _, tensors = checkpoint("qwen2")
    wanted = logits(load(tensors, tmp_path))
    (path,) = tmp_path.iterdir()
    data = bytearray(path.read_bytes())
    if damage == "flip":
        data[len(data) // 2] ^= 1
    elif damage == "header":
        data[3] ^= 1
    elif damage == "longer":
        data += b"\0"
    path.write_bytes(data[: {"cut": 5000, "empty": 0}.get(damage, len(data))])
    assert np.array_equal(logits(load(tensors, tmp_path)), wanted)
    assert np.array_equal(logits(load(Refusing(), tmp_path)), wanted)


def test_an_unwritable_cache_does_not_keep_anybody_from_decoding(tmp_path: Path) -> None:
    _, tensors = checkpoint("qwen2")
    (tmp_path / "file").write_text("not a folder")
    assert logits(load(tensors, tmp_path / "file")).shape == (20, 301)


def test_memory_is_little_more_than_the_packed_weights() -> None:
    spec, tensors = checkpoint("qwen2")
    decoder = CpuDecoder(spec, tensors, weight_format="bf16", slots=1, slot_tokens=64, threads=1)
    parameters = sum(t.size for t in tensors.values())
    held = decoder.memory_bytes()
    assert held["weights"] < 1.15 * 2 * parameters + 4096
    assert held["slots"] == spec.layers * spec.kv_heads * 2 * 64 * spec.head_dim * 2


def test_wrong_input_is_refused_in_words(tmp_path: Path) -> None:
    decoder = load(checkpoint("qwen2")[1], tmp_path)
    row = np.zeros(1, np.int32)
    for tokens, slots, positions in [(301, 0, 0), (0, 1, 0), (0, 0, 64), (-1, 0, 0)]:
        with pytest.raises(ValueError, match="out of range"):
            decoder.forward(row + tokens, row + slots, row + positions, row)
    with pytest.raises(ValueError, match="instruction set"):
        CpuDecoder(*checkpoint("qwen2"), isa="z80", threads=1)
    decoder.close()
    with pytest.raises(RuntimeError, match="closed"):
        decoder.forward(row, row, row, row)


def plainly_rounded(matrix: np.ndarray) -> np.ndarray:
    """Four bits a weight, groups of 32, the best of the same scales: what INT4 usually is."""
    groups = matrix.reshape(-1, 32)
    peak = -groups[np.arange(len(groups)), np.abs(groups).argmax(1)]
    best, smallest = np.zeros_like(groups), np.full(len(groups), np.inf)
    for step in range(-6, 5):
        scale = (peak / (8 + 0.2 * step))[:, None]
        values = np.clip(np.rint(groups / scale), -8, 7) * scale
        error = ((values - groups) ** 2).sum(1)
        best[error < smallest] = values[error < smallest]
        smallest = np.minimum(smallest, error)
    return best.reshape(matrix.shape)


def test_whole_bytes_as_weights_cost_no_precision() -> None:
    matrix = np.random.default_rng(4).standard_normal((64, 640)).astype(np.float32)
    error = np.mean((rounded(matrix, "int4") - matrix) ** 2)
    assert error < 1.02 * np.mean((plainly_rounded(matrix) - matrix) ** 2)
    assert np.mean((rounded(matrix, "int8") - matrix) ** 2) < error / 100


def test_zeros_stay_zeros_in_four_bits() -> None:
    matrix = np.random.default_rng(4).standard_normal((32, 64)).astype(np.float32)
    matrix[:, 8:24] = 0
    assert not rounded(matrix, "int4")[:, 8:24].any()
