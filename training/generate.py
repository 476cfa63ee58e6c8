"""Greedy decoding with a cache for evaluation, plain and small; the engine's own is elsewhere."""

import torch
from torch import Tensor
from torch.nn import functional as F

from training.model import Decoder, Layer, rope_tables, rotate


class Cache:
    """Keys and values of sequences of one length: [layers, 2, batch, room, kv_heads, head_dim]; and
    the layers' inputs, as some look at the one before."""

    def __init__(self, model: Decoder, room: int, batch: int = 1) -> None:
        shape = model.shape
        self.data = torch.empty(shape.layers, 2, batch, room, shape.kv_heads, shape.head_dim)
        self.inputs = torch.empty(shape.layers, batch, room, shape.hidden)
        self.length = 0
        self.cos, self.sin = rope_tables(shape, room)


def _attend(layer: Layer, number: int, x: Tensor, cache: Cache) -> Tensor:
    """One layer over new rows x [batch, rows, hidden] that follow the cache's length."""
    shape, (batch, rows, _), start = layer.shape, x.shape, cache.length
    end = start + rows
    inputs = cache.inputs[number]
    inputs[:, start:end] = x
    before = inputs[:, start - 1 : start] if start else None
    qkv = layer.project(x, before).view(batch, rows, -1, shape.head_dim)
    q, k, v = qkv.split([shape.heads, shape.kv_heads, shape.kv_heads], dim=2)
    cos, sin = cache.cos[start:end], cache.sin[start:end]
    q, k = rotate(q, cos, sin), rotate(k, cos, sin)
    keys, values = cache.data[number]
    keys[:, start:end], values[:, start:end] = k, v
    mask = torch.arange(end)[None, :] <= torch.arange(start, end)[:, None]
    mixed = F.scaled_dot_product_attention(
        q.transpose(1, 2),
        keys[:, :end].transpose(1, 2),
        values[:, :end].transpose(1, 2),
        attn_mask=mask,
        enable_gqa=True,
    )
    x = x + layer.out(mixed.transpose(1, 2).reshape(batch, rows, -1))
    gate, up = layer.gate_up(layer.norm2(x)).chunk(2, dim=-1)
    return x + layer.down(F.silu(gate) * up)


@torch.no_grad()
def follow(model: Decoder, tokens: Tensor, cache: Cache) -> Tensor:
    """Run tokens [batch, rows] after the cache, append them; what the last layer leaves of the last
    row, [batch, hidden]."""
    x = model.embed(tokens)
    for number, layer in enumerate(model.layers):
        assert isinstance(layer, Layer)
        x = _attend(layer, number, x, cache)
    cache.length += tokens.shape[1]
    return x[:, -1]


@torch.no_grad()
def advance(model: Decoder, tokens: Tensor, cache: Cache) -> Tensor:
    """Run tokens [batch, rows] after the cache, append them; last logits [batch, vocabulary]."""
    return F.linear(model.norm(follow(model, tokens, cache)), model.embed.weight)


def continue_all(
    model: Decoder, prompts: list[list[int]], limit: int, stop: int
) -> list[list[int]]:
    """Up to `limit` tokens after each prompt, without the stop token; prompts of one length."""
    cache = Cache(model, len(prompts[0]) + limit, len(prompts))
    made = torch.empty(len(prompts), 0, dtype=torch.long)
    new = torch.tensor(prompts)
    while made.shape[1] < limit:
        new = advance(model, new, cache).argmax(dim=-1, keepdim=True)
        made = torch.cat((made, new), dim=1)
        if bool((made == stop).any(dim=1).all()):
            break
    return [row[: row.index(stop)] if stop in row else row for row in made.tolist()]


def continue_greedily(model: Decoder, prompt: list[int], limit: int, stop: int) -> list[int]:
    """Up to `limit` tokens after one prompt."""
    return continue_all(model, [prompt], limit, stop)[0]
