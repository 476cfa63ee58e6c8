"""Quantised weights on disk: one safetensors file a layer, in a folder that appears at once.

The folder is named by the checkpoint's fingerprint, the format and the version of the packing.
A folder that is incomplete, damaged or cannot be written is as good as none.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import torch
from atlasd_kernels.gpu.formats import Format, PackedMatrix
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from atlasd.models.config import ModelConfig
from atlasd.models.locate import Progress
from atlasd.models.quant import (
    Packer,
    QuantLayer,
    QuantModel,
    Tensors,
    quantise_model,
)

log = logging.getLogger(__name__)

VERSION = 2
MATRICES = ("qkv", "output", "gate_up", "down")


def cache_folder(cache_dir: Path, identity: str, config: ModelConfig, kind: Format) -> Path:
    """Where the weights of this model in this format are kept."""
    key = hashlib.sha256(f"{VERSION} {kind} {config!r} {identity}".encode()).hexdigest()[:32]
    return cache_dir / f"gpu-{kind}-{key}"


def load_quantised(
    weights: Tensors,
    config: ModelConfig,
    kind: Format,
    device: torch.device,
    *,
    cache_dir: Path | None = None,
    identity: str = "",
    progress: Progress | None = None,
) -> QuantModel:
    """The packed model, from the cache if it is there, and put there if it was not. Formats that
    the checkpoint already has (fp32, bf16) are not cached."""
    if cache_dir is None or not identity or kind in ("fp32", "bf16"):
        return quantise_model(weights, config, kind, device, progress)
    folder = cache_folder(cache_dir, identity, config, kind)
    if folder.is_dir():
        with suppress(OSError):
            os.utime(folder)  # opened last
        try:
            return _read(folder, config, device, progress)
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            log.warning("the packed weights in %s are unusable (%s); packing again", folder, error)
            shutil.rmtree(folder, ignore_errors=True)
    return _pack_and_write(weights, config, kind, device, folder, progress)


def _pack_and_write(
    weights: Tensors,
    config: ModelConfig,
    kind: Format,
    device: torch.device,
    folder: Path,
    progress: Progress | None,
) -> QuantModel:
    packer = Packer(weights, config, kind, device)
    beside = folder.with_name(f".{folder.name}.{os.getpid()}")
    writes = _try(lambda: beside.mkdir(parents=True))
    layers = []
    try:
        for number, layer in enumerate(packer.layers(progress)):
            layers.append(layer)
            path = beside / f"layer-{number:04}.safetensors"
            writes = writes and _save(layer_tensors(layer), path)
        embedding = packer.embedding()
        head, gain = packer.head(embedding), packer.gain("model.norm.weight")
        rest = {"embedding": embedding, "gain": gain, **_matrix_tensors("head", head)}
        writes = writes and _save(rest, beside / "rest.safetensors")
        if writes:
            _try(lambda: beside.replace(folder))
        return QuantModel(embedding, head, gain, layers)
    finally:
        shutil.rmtree(beside, ignore_errors=True)


def _read(
    folder: Path, config: ModelConfig, device: torch.device, progress: Progress | None
) -> QuantModel:
    layers = []
    for number in range(config.layers):
        if progress:
            progress("reading packed weights", number / config.layers)
        layers.append(layer_of(_open(folder / f"layer-{number:04}.safetensors", device)))
    rest = _open(folder / "rest.safetensors", device)
    return QuantModel(rest["embedding"], _matrix_of("head", rest), rest["gain"], layers)


def layer_tensors(layer: QuantLayer) -> dict[str, Tensor]:
    """A layer as named tensors."""
    tensors = {"attention_gain": layer.attention_gain, "mlp_gain": layer.mlp_gain}
    for name in MATRICES:
        tensors |= _matrix_tensors(name, getattr(layer, name))
    if layer.qkv_bias is not None:
        tensors["qkv_bias"] = layer.qkv_bias
    if layer.qk_gains is not None:
        tensors["q_gain"], tensors["k_gain"] = layer.qk_gains
    return tensors


def layer_of(tensors: dict[str, Tensor]) -> QuantLayer:
    """The inverse of ``layer_tensors``."""
    gains = (tensors["q_gain"], tensors["k_gain"]) if "q_gain" in tensors else None
    qkv, output, gate_up, down = (_matrix_of(name, tensors) for name in MATRICES)
    return QuantLayer(
        tensors["attention_gain"],
        qkv,
        tensors.get("qkv_bias"),
        gains,
        output,
        tensors["mlp_gain"],
        gate_up,
        down,
    )


def _matrix_tensors(name: str, matrix: PackedMatrix) -> dict[str, Tensor]:
    shape = torch.tensor([matrix.rows, matrix.columns], dtype=torch.int64)
    return {
        f"{name}.{matrix.format}": matrix.data,
        f"{name}.scales": matrix.scales,
        f"{name}.groups": matrix.groups,
        f"{name}.shape": shape,
    }


def _matrix_of(name: str, tensors: dict[str, Tensor]) -> PackedMatrix:
    for kind in ("fp8", "int8", "int4", "nvfp4"):
        if f"{name}.{kind}" in tensors:
            rows, columns = tensors[f"{name}.shape"].tolist()
            return PackedMatrix(
                kind,
                rows,
                columns,
                tensors[f"{name}.{kind}"],
                tensors[f"{name}.scales"],
                tensors[f"{name}.groups"],
            )
    raise KeyError(name)


def _open(path: Path, device: torch.device) -> dict[str, Tensor]:
    with safe_open(path, framework="pt", device=str(device)) as file:
        return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118


def _save(tensors: dict[str, Tensor], path: Path) -> bool:
    return _try(lambda: save_file({n: t.cpu().contiguous() for n, t in tensors.items()}, path))


def _try(write: Callable[[], object]) -> bool:
    """A full or read-only disk must not keep anybody from decoding."""
    try:
        write()
    except OSError as error:
        log.warning("packed weights are not kept: %s", error)
        return False
    return True
