"""Quantising at load: sizes told beforehand, the cache on disk, what ``auto`` picks."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from atlasd_kernels.gpu.formats import FORMATS, Format, dequantise

from atlasd.models.config import ModelConfig, read_config
from atlasd.models.locate import find_model
from atlasd.models.quant import choose_format, model_bytes, quantise_model
from atlasd.models.quant_cache import cache_folder, layer_tensors, load_quantised
from atlasd.models.weights import open_weights
from tests.engine.tiny import tiny_checkpoint

CPU = torch.device("cpu")


class Watched(Mapping[str, np.ndarray]):
    """Counts which tensors are read."""

    def __init__(self, inner: Mapping[str, np.ndarray]) -> None:
        self.inner = inner
        self.read: Counter[str] = Counter()

    def __getitem__(self, name: str) -> np.ndarray:
        self.read[name] += 1
        return self.inner[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.inner)

    def __len__(self) -> int:
        return len(self.inner)


@pytest.fixture(scope="module")
def config_and_weights(
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[ModelConfig, Mapping[str, np.ndarray]]:
    files = find_model(str(tiny_checkpoint(tmp_path_factory.mktemp("tiny"), dtype="bfloat16")))
    config = read_config(files)
    return config, open_weights(files, config)


@pytest.mark.parametrize("kind", FORMATS)
def test_what_a_model_takes_is_known_before_it_is_read(config_and_weights, kind: Format) -> None:
    config, weights = config_and_weights
    model = quantise_model(weights, config, kind, CPU)
    assert model.nbytes() <= model_bytes(config, kind) <= model.nbytes() * 1.01 + 4096


def test_every_tensor_is_read_once_and_progress_is_told(config_and_weights) -> None:
    config, weights = config_and_weights
    watched, told = Watched(weights), []
    quantise_model(watched, config, "int4", CPU, lambda what, done: told.append((what, done)))
    assert set(watched.read) == set(weights)
    assert set(watched.read.values()) == {1}
    assert [done for _, done in told] == [n / config.layers for n in range(config.layers)]


@pytest.mark.parametrize("kind", ["int8", "nvfp4"])
def test_a_second_load_reads_the_cache(config_and_weights, kind: Format, tmp_path: Path) -> None:
    config, weights = config_and_weights
    options = {"cache_dir": tmp_path, "identity": "abc"}
    first = load_quantised(weights, config, kind, CPU, **options)
    watched = Watched(weights)
    (kept,) = tmp_path.iterdir()
    os.utime(kept, (1, 1))
    second = load_quantised(watched, config, kind, CPU, **options)
    assert not watched.read
    assert kept.stat().st_mtime > 1, "when it was opened last is not known"
    assert torch.equal(first.embedding, second.embedding)
    assert torch.equal(dequantise(first.head), dequantise(second.head))
    for one, other in zip(first.layers, second.layers, strict=True):
        ours, theirs = layer_tensors(one), layer_tensors(other)
        assert set(ours) == set(theirs)
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    load_quantised(watched, config, kind, CPU, cache_dir=tmp_path, identity="other checkpoint")
    assert watched.read


def test_a_damaged_cache_is_packed_again(config_and_weights, tmp_path: Path, caplog) -> None:
    config, weights = config_and_weights
    options = {"cache_dir": tmp_path, "identity": "abc"}
    first = load_quantised(weights, config, "int8", CPU, **options)
    folder = cache_folder(tmp_path, "abc", config, "int8")
    (folder / "layer-0001.safetensors").write_bytes(b"cut off")
    second = load_quantised(weights, config, "int8", CPU, **options)
    assert "packing again" in caplog.text
    assert torch.equal(first.layers[1].down.data, second.layers[1].down.data)
    assert (folder / "layer-0001.safetensors").stat().st_size > 100
    assert [path.name for path in tmp_path.iterdir()] == [folder.name]


def test_a_disk_that_cannot_be_written_keeps_nobody_from_decoding(
    config_and_weights, tmp_path: Path, caplog
) -> None:
    config, weights = config_and_weights
    occupied = tmp_path / "file"
    occupied.write_text("not a folder")
    model = load_quantised(weights, config, "int8", CPU, cache_dir=occupied, identity="abc")
    assert len(model.layers) == config.layers
    assert "not kept" in caplog.text


def test_auto_takes_the_best_that_fits(config_and_weights) -> None:
    config = replace(
        config_and_weights[0], hidden_size=1024, intermediate_size=4096, layers=10, tied=False
    )
    room = 1000
    sizes = {kind: model_bytes(config, kind) + room for kind in ("bf16", "int8", "nvfp4", "int4")}
    for kind, size in sizes.items():
        assert choose_format(config, size, room) == kind
    assert choose_format(config, 0, room) == "int4"
    assert list(sizes.values()) == sorted(sizes.values(), reverse=True)
