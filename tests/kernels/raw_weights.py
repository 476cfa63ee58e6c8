"""Raw bf16 weights as trained models have them, and as none should."""

from __future__ import annotations

import numpy as np
from atlasd_kernels.spec import DecoderSpec

SPEC = DecoderSpec(
    vocab_size=333,
    hidden_size=320,
    layers=2,
    heads=4,
    kv_heads=2,
    head_dim=64,
    intermediate_size=896,
    rms_eps=1e-6,
    inv_freq=np.linspace(1, 0.01, 32, dtype=np.float32),
    tied=True,
    qkv_bias=True,
)


def bits(values: np.ndarray) -> np.ndarray:
    """float32 as bf16, cut off."""
    return (values.astype(np.float32).view(np.uint32) >> 16).astype(np.uint16)


def trained(random: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    return bits(random.normal(size=shape) * 0.05)


def weights(kind: str, shape: tuple[int, int]) -> np.ndarray:
    """Raw bf16 [columns, k]: most exponents near each other, and something that is not."""
    random = np.random.default_rng(3)
    found = trained(random, shape)
    some = random.random(shape) < 0.002
    if kind != "zeros":
        some[32:] = False  # such a panel is kept in sixteen bits
    if kind == "zeros":
        found[some] = random.integers(0, 2, some.sum()) << 15
    elif kind == "denormals":
        found[some] = random.integers(0, 2**7, some.sum())
    elif kind == "extremes":
        found[some] = bits(np.array([3e38, -3e38, 1.2e-38, 1e-20, 1e20]))[
            random.integers(0, 5, some.sum())
        ]
    elif kind == "no numbers":
        found[some] = np.array([0x7F80, 0xFF80, 0x7FC1], np.uint16)[
            random.integers(0, 3, some.sum())
        ]
    elif kind == "large":
        found = bits(random.normal(size=shape) * 1e30)
    elif kind == "small":
        found = bits(random.normal(size=shape) * 1e-35)
    elif kind == "panels apart":
        found[32:64] = bits(random.normal(size=(32, shape[1])) * 1e5)
    return found


KINDS = ["trained", "zeros", "denormals", "extremes", "no numbers", "large", "small"]
KINDS += ["panels apart"]


def random_tensors(spec: DecoderSpec) -> dict[str, np.ndarray]:
    """Random float32 weights of this shape."""
    random, hidden, dim = np.random.default_rng(0), spec.hidden_size, spec.head_dim
    q, kv, wide = spec.heads * dim, spec.kv_heads * dim, spec.intermediate_size
    shapes: dict[str, tuple[int, ...]] = {
        "model.embed_tokens.weight": (spec.vocab_size, hidden),
        "lm_head.weight": (spec.vocab_size, hidden),
        "model.norm.weight": (hidden,),
    }
    for i in range(spec.layers):
        at = f"model.layers.{i}."
        for name, rows in (("q", q), ("k", kv), ("v", kv)):
            shapes[f"{at}self_attn.{name}_proj.weight"] = (rows, hidden)
            shapes[f"{at}self_attn.{name}_proj.bias"] = (rows,)
        shapes |= {f"{at}self_attn.{name}_norm.weight": (dim,) for name in "qk"}
        shapes[f"{at}self_attn.o_proj.weight"] = (hidden, q)
        shapes |= {f"{at}mlp.{name}_proj.weight": (wide, hidden) for name in ("gate", "up")}
        shapes[f"{at}mlp.down_proj.weight"] = (hidden, wide)
        for name in ("input_layernorm", "post_attention_layernorm"):
            shapes[f"{at}{name}.weight"] = (hidden,)
    return {k: (random.normal(size=v) * 0.1).astype(np.float32) for k, v in shapes.items()}
