"""The Qwen2-layout decoder as it is trained: fused projections, whole sequences, no cache."""

from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

VOCABULARY = 8192


@dataclass(frozen=True)
class Shape:
    """Dimensions of a decoder; every one a multiple of 64 so that kernels need no edge cases."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    intermediate: int
    vocabulary: int = VOCABULARY
    head_dim: int = 64
    rope_theta: float = 10_000.0
    norm_eps: float = 1e-6

    def parameters(self) -> int:
        """Total parameter count, the tied embedding counted once."""
        q, kv = self.heads * self.head_dim, self.kv_heads * self.head_dim
        attention = self.hidden * (2 * q + 2 * kv) + q + 2 * kv
        layer = attention + 3 * self.hidden * self.intermediate + 2 * self.hidden
        return self.layers * layer + self.vocabulary * self.hidden + self.hidden

    def to_dict(self) -> dict[str, int | float]:
        return asdict(self)


SIZES = {
    "tiny": Shape(hidden=64, layers=1, heads=1, kv_heads=1, intermediate=128),
    "5m": Shape(hidden=320, layers=2, heads=5, kv_heads=1, intermediate=896),
    "7m": Shape(hidden=320, layers=4, heads=5, kv_heads=1, intermediate=896),
    "8m": Shape(hidden=384, layers=3, heads=6, kv_heads=2, intermediate=1024),
    "11m": Shape(hidden=448, layers=4, heads=7, kv_heads=1, intermediate=1152),
    "20m": Shape(hidden=576, layers=4, heads=9, kv_heads=3, intermediate=1728),
}


def rope_tables(shape: Shape, length: int) -> tuple[Tensor, Tensor]:
    """cos and sin, each [length, head_dim / 2], for positions 0..length-1."""
    step = torch.arange(0, shape.head_dim, 2, dtype=torch.float64) / shape.head_dim
    angles = torch.outer(torch.arange(length, dtype=torch.float64), shape.rope_theta**-step)
    return angles.cos().float(), angles.sin().float()


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding of x [batch, length, heads, head_dim]; halves paired as in Qwen2."""
    first, second = x.chunk(2, dim=-1)
    cos, sin = cos[:, None, :], sin[:, None, :]
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)


def document_lengths(tokens: Tensor, end: int, least: int = 64) -> list[int]:
    """Lengths of the documents of one row [length], short ones joined to the next."""
    starts, lengths = 0, []
    for at in ((tokens == end).nonzero().flatten() + 1).tolist():
        if at - starts >= least and len(tokens) - at >= least:
            lengths.append(at - starts)
            starts = at
    return [*lengths, len(tokens) - starts]


class Layer(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        q, kv = shape.heads * shape.head_dim, shape.kv_heads * shape.head_dim
        self.splits = [q, kv, kv]
        self.norm1 = nn.RMSNorm(shape.hidden, eps=shape.norm_eps)
        self.qkv = nn.Linear(shape.hidden, q + 2 * kv, bias=True)
        self.out = nn.Linear(q, shape.hidden, bias=False)
        self.norm2 = nn.RMSNorm(shape.hidden, eps=shape.norm_eps)
        self.gate_up = nn.Linear(shape.hidden, 2 * shape.intermediate, bias=False)
        self.down = nn.Linear(shape.intermediate, shape.hidden, bias=False)

    def project(self, x: Tensor, before: Tensor | None = None) -> Tensor:
        """Queries, keys and values [batch, length, q + 2 kv] of x [batch, length, hidden];
        ``before`` [batch, 1, hidden] is the input before the first, for layers that look at it."""
        return self.qkv(self.norm1(x))

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor, documents: list[int]) -> Tensor:
        """x [batch, length, hidden] -> the same shape, causally inside each of `documents`.

        documents: lengths that sum to `length`; tokens of one never look at another.
        """
        batch, length, _ = x.shape
        shape = self.shape
        qkv = self.project(x).view(batch, length, -1, shape.head_dim)
        q, k, v = qkv.split([shape.heads, shape.kv_heads, shape.kv_heads], dim=2)
        q, k = rotate(q, cos, sin), rotate(k, cos, sin)
        group = shape.heads // shape.kv_heads
        k, v = (t.repeat_interleave(group, dim=2) if group > 1 else t for t in (k, v))
        parts = [t.transpose(1, 2).split(documents, dim=2) for t in (q, k, v)]
        mixed = torch.cat(
            [
                F.scaled_dot_product_attention(*part, is_causal=True)
                for part in zip(*parts, strict=True)
            ],
            dim=2,
        )
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, -1))
        gate, up = self.gate_up(self.norm2(x)).chunk(2, dim=-1)
        return x + self.down(F.silu(gate) * up)


class Decoder(nn.Module):
    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.embed = nn.Embedding(shape.vocabulary, shape.hidden)
        self.layers = nn.ModuleList(Layer(shape) for _ in range(shape.layers))
        self.norm = nn.RMSNorm(shape.hidden, eps=shape.norm_eps)
        self.reset()

    def reset(self) -> None:
        """Branches start at zero; a small embedding keeps a token from predicting itself."""
        nn.init.normal_(self.embed.weight, std=0.02)
        for layer in self.layers:
            assert isinstance(layer, Layer)
            for linear in (layer.qkv, layer.gate_up):
                nn.init.normal_(linear.weight, std=0.6 * self.shape.hidden**-0.5)
            nn.init.zeros_(layer.qkv.bias)
            nn.init.zeros_(layer.out.weight)
            nn.init.zeros_(layer.down.weight)

    def hidden(self, tokens: Tensor, end: int | None = None) -> Tensor:
        """tokens [batch, length] -> final normed states [batch, length, hidden].

        end: the token that ends a document. A batch of one row is then attended document by
        document, which costs half; larger batches (a GPU) attend to whole rows.
        """
        documents = [tokens.shape[1]]
        if end is not None and len(tokens) == 1:
            documents = document_lengths(tokens[0], end)
        return self.through(self.embed(tokens), documents)

    def through(
        self, x: Tensor, documents: list[int] | None = None, *, normed: bool = True
    ) -> Tensor:
        """Inputs x [batch, length, hidden] -> final states of the same shape."""
        cos, sin = (t.to(x.device) for t in rope_tables(self.shape, x.shape[1]))
        for layer in self.layers:
            x = layer(x, cos, sin, documents or [x.shape[1]])
        return self.norm(x) if normed else x

    def logits(self, tokens: Tensor) -> Tensor:
        return F.linear(self.hidden(tokens), self.embed.weight)
