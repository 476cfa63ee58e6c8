"""The shape of a Llama-family decoder, as the kernels need to know it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class DecoderSpec:
    """Everything about a checkpoint that is not a weight.

    RoPE scaling (llama3, yarn, linear) is already in ``inv_freq`` and ``attention_factor``: the
    kernels compute cos and sin of position * inv_freq, times the factor, and nothing else.
    """

    vocab_size: int
    hidden_size: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate_size: int
    rms_eps: float
    inv_freq: npt.NDArray[np.float32]
    """[head_dim / 2], radians per position."""

    attention_factor: float = 1.0
    tied: bool = False
    """The head is the embedding matrix."""

    qkv_bias: bool = False
    """Qwen2: biases on q, k and v."""

    qk_norm: bool = False
    """Qwen3: RMSNorm over head_dim on q and k before RoPE."""

    sliding_window: tuple[int | None, ...] = ()
    """Per layer, the number of positions a row sees, itself included; empty or None: all."""

    max_positions: int = 1 << 30

    def __post_init__(self) -> None:
        if self.heads % self.kv_heads:
            raise ValueError("heads must be a multiple of kv_heads")
        if self.inv_freq.shape != (self.head_dim // 2,):
            raise ValueError("inv_freq must have head_dim / 2 entries")
        if self.sliding_window and len(self.sliding_window) != self.layers:
            raise ValueError("sliding_window must have one entry per layer, or none")
