"""Greedy decoding with a cache for evaluation, plain and small; the engine's own is elsewhere."""

import torch
from torch import Tensor
from torch.nn import functional as F

from training.model import Decoder, Layer, rope_tables, rotate


class Cache:
    """Keys and values of one sequence, per layer [length, kv_heads, head_dim]."""

    def __init__(self, model: Decoder, room: int) -> None:
        shape = model.shape
        size = (shape.layers, 2, room, shape.kv_heads, shape.head_dim)
        self.data = torch.empty(size)
        self.length = 0
        self.cos, self.sin = rope_tables(shape, room)


def _attend(layer: Layer, number: int, x: Tensor, cache: Cache) -> Tensor:
    """One layer over new rows x [rows, hidden] that follow the cache's length."""
    shape, rows, start = layer.shape, len(x), cache.length
    end = start + rows
    qkv = layer.qkv(layer.norm1(x)).view(1, rows, -1, shape.head_dim)
    q, k, v = qkv.split([shape.heads, shape.kv_heads, shape.kv_heads], dim=2)
    cos, sin = cache.cos[start:end], cache.sin[start:end]
    q, k = rotate(q, cos, sin), rotate(k, cos, sin)
    keys, values = cache.data[number]
    keys[start:end], values[start:end] = k[0], v[0]
    mask = torch.arange(end)[None, :] <= torch.arange(start, end)[:, None]
    mixed = F.scaled_dot_product_attention(
        q.transpose(1, 2),
        keys[None, :end].transpose(1, 2),
        values[None, :end].transpose(1, 2),
        attn_mask=mask,
        enable_gqa=True,
    )
    x = x + layer.out(mixed.transpose(1, 2).reshape(rows, -1))
    gate, up = layer.gate_up(layer.norm2(x)).chunk(2, dim=-1)
    return x + layer.down(F.silu(gate) * up)


@torch.no_grad()
def advance(model: Decoder, tokens: list[int], cache: Cache) -> Tensor:
    """Run tokens after the cache and append them to it; logits of the last one [vocabulary]."""
    x = model.embed(torch.tensor(tokens))
    for number, layer in enumerate(model.layers):
        assert isinstance(layer, Layer)
        x = _attend(layer, number, x, cache)
    cache.length += len(tokens)
    return model.embed.weight @ model.norm(x[-1])


def continue_greedily(model: Decoder, prompt: list[int], limit: int, stop: set[int]) -> list[int]:
    """Up to `limit` tokens after the prompt, without the stop token."""
    cache = Cache(model, len(prompt) + limit)
    logits = advance(model, prompt, cache)
    made: list[int] = []
    while len(made) < limit:
        token = int(logits.argmax())
        if token in stop:
            break
        made.append(token)
        if len(made) < limit:
            logits = advance(model, [token], cache)
    return made
