"""Packed weights on disk: shared, verified, rebuilt when damaged."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from atlasd_kernels.cpu import CpuDecoder

from tests.kernels.conftest import FORMATS, checkpoint


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
    assert np.array_equal(first, logits(load(Refusing(), tmp_path, weight_format)))
    assert len(list(tmp_path.iterdir())) == 1


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
