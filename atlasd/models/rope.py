"""Rotary position embedding: the inverse frequencies of the variants that the families use.

numpy only, because the CPU kernels need them where torch is not loaded. The variants follow
transformers' modeling_rope_utils.py in float32, so that the angles agree with it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from atlasd.errors import ModelError
from atlasd.models.gguf_file import GgufFile

Float32 = npt.NDArray[np.float32]
ROPE_TYPES = ("default", "linear", "llama3", "yarn", "dynamic")


@dataclass(frozen=True)
class Rope:
    """How positions turn into angles: position * inv_freq; cos and sin times the factor."""

    inv_freq: tuple[float, ...]
    """[head_dim / 2], radians per position."""

    attention_factor: float = 1.0

    def frequencies(self) -> Float32:
        return np.asarray(self.inv_freq, dtype=np.float32)

    def tables(self, positions: int) -> tuple[Float32, Float32]:
        """cos and sin, each [positions, head_dim / 2]."""
        angles = np.outer(np.arange(positions, dtype=np.float32), self.frequencies())
        factor = np.float32(self.attention_factor)
        return np.cos(angles) * factor, np.sin(angles) * factor


def rope_from_config(name: str, config: Mapping[str, Any], head_dim: int) -> tuple[Rope, int]:
    """The RoPE of a config.json (transformers 4 and 5 spell it differently) and the number of
    positions it is made for. Raises ModelError for a variant that is not served."""
    given = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = str(given.get("rope_type") or given.get("type") or "default")
    theta = float(given.get("rope_theta") or config.get("rope_theta") or 10_000.0)
    partial = given.get("partial_rotary_factor") or config.get("partial_rotary_factor") or 1.0
    reach = int(config.get("max_position_embeddings", 2048))
    if kind not in ROPE_TYPES or any(isinstance(value, Mapping) for value in given.values()):
        raise ModelError(
            f"{name} has the RoPE variant {kind!r}, which is not served.",
            f"What works: {', '.join(ROPE_TYPES)}.",
        )
    if float(partial) != 1.0:
        raise ModelError(
            f"{name} rotates only a part of each head, which is not served.",
            f"What works: RoPE over whole heads, {', '.join(ROPE_TYPES)}.",
        )
    trained = int(
        given.get("original_max_position_embeddings")
        or config.get("original_max_position_embeddings")
        or reach
    )
    base = base_frequencies(theta, head_dim)
    if kind == "linear":
        return _rope(base / np.float32(given["factor"])), reach
    if kind == "llama3":
        return _rope(llama3_frequencies(base, given, trained)), reach
    if kind == "yarn":
        factor = given.get("factor") or reach / trained
        frequencies = yarn_frequencies(theta, head_dim, float(factor), trained, given)
        # A yarn config may state the trained length only; the factor says how far it reaches.
        return _rope(frequencies, yarn_attention_factor(float(factor), given)), max(
            reach, int(trained * factor)
        )
    # Dynamic NTK changes every frequency with the length once it exceeds the trained one. A row
    # must not depend on that, so it is served up to there, where it equals the default.
    return _rope(base), reach


def rope_from_gguf(file: GgufFile, head_dim: int) -> Rope:
    """The RoPE of a GGUF file; llama3's scaling is a tensor of divisors there."""
    theta = float(file.value("rope.freq_base", 10_000.0))
    kind = file.value("rope.scaling.type", "none")
    base = base_frequencies(theta, head_dim)
    rotated = int(file.value("rope.dimension_count", head_dim))
    if kind not in ("none", "linear", "yarn") or rotated != head_dim:
        raise ModelError(
            f"{file.path.name} has the RoPE variant {kind!r} over {rotated} of {head_dim}, which"
            " is not served.",
            f"What works: {', '.join(ROPE_TYPES)}.",
        )
    if divisors := file.tensors.get("rope_freqs.weight"):
        data = np.fromfile(file.path, np.float32, divisors.shape[0], offset=divisors.offset)
        return _rope(base / data)
    factor = float(file.value("rope.scaling.factor", 1.0))
    if kind == "linear":
        return _rope(base / np.float32(factor))
    if kind == "yarn":
        trained = int(file.value("rope.scaling.original_context_length"))
        frequencies = yarn_frequencies(theta, head_dim, factor, trained, {})
        # llama.cpp multiplies its own 1 + 0.1 ln(factor) by this.
        extra = float(file.value("rope.scaling.attn_factor", 1.0))
        return _rope(frequencies, yarn_attention_factor(factor, {}) * extra)
    return _rope(base)


def base_frequencies(theta: float, head_dim: int) -> Float32:
    """theta^(-2i/d), [head_dim / 2]; "RoFormer" (Su et al. 2021)."""
    exponent = np.arange(0, head_dim, 2, dtype=np.float32) / np.float32(head_dim)
    frequencies: Float32 = (1.0 / np.power(np.float32(theta), exponent)).astype(np.float32)
    return frequencies


def llama3_frequencies(base: Float32, given: Mapping[str, Any], trained: int) -> Float32:
    """Llama 3.1: long wavelengths divided by the factor, short ones kept, a ramp between."""
    factor = float(given["factor"])
    low, high = float(given["low_freq_factor"]), float(given["high_freq_factor"])
    wavelength = 2 * math.pi / base
    smooth = np.clip((trained / wavelength - low) / (high - low), 0.0, 1.0)
    scaled: Float32 = ((1 - smooth) * base / factor + smooth * base).astype(np.float32)
    return scaled


def yarn_frequencies(
    theta: float, head_dim: int, factor: float, trained: int, given: Mapping[str, Any]
) -> Float32:
    """YaRN (Peng et al. 2023): interpolate slow dimensions, keep fast ones, a ramp between."""

    def dimension(rotations: float) -> float:
        turns = trained / (rotations * 2 * math.pi)
        return head_dim * math.log(turns) / (2 * math.log(theta))

    low = dimension(float(given.get("beta_fast") or 32))
    high = dimension(float(given.get("beta_slow") or 1))
    if given.get("truncate", True):
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, head_dim - 1)
    if low == high:
        high += 0.001
    ramp = np.clip((np.arange(head_dim // 2, dtype=np.float32) - low) / (high - low), 0, 1)
    base = base_frequencies(theta, head_dim)
    mixed: Float32 = (base / factor * ramp + base * (1 - ramp)).astype(np.float32)
    return mixed


def yarn_attention_factor(factor: float, given: Mapping[str, Any]) -> float:
    """The temperature of attention under YaRN, as a factor of cos and sin."""
    if (stated := given.get("attention_factor")) is not None:
        return float(stated)

    def scale(weight: float) -> float:
        return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1.0

    above, below = given.get("mscale"), given.get("mscale_all_dim")
    return scale(float(above)) / scale(float(below)) if above and below else scale(1.0)


def _rope(frequencies: Float32, attention_factor: float = 1.0) -> Rope:
    return Rope(tuple(float(value) for value in frequencies), attention_factor)
