"""A matrix as it is kept, and products of rows with it: a decoder without layers computes them."""

from __future__ import annotations

import dataclasses

import numpy as np
import torch
from atlasd_kernels.cpu import CpuDecoder
from atlasd_kernels.cpu.library import native
from atlasd_kernels.cpu.packing import BF16, SIXTEEN, Part, Piece, pack_part, part_bytes, zeroed

from tests.kernels.raw_weights import SPEC

ROWS = 40


def floats(matrix: np.ndarray) -> np.ndarray:
    return (matrix.astype(np.uint32) << 16).view(np.float32)


def only_head(embedding: np.ndarray, norm: np.ndarray, isa: str) -> CpuDecoder:
    """No layers: a token's logits are the head's products with its normalised embedding."""
    vocabulary, hidden = embedding.shape
    spec = dataclasses.replace(SPEC, vocab_size=vocabulary, hidden_size=hidden, layers=0)
    found = {"model.embed_tokens.weight": embedding, "model.norm.weight": norm}
    return CpuDecoder(spec, found, weight_format="bf16", slot_tokens=64, threads=1, isa=isa)


def products(embedding: np.ndarray, norm: np.ndarray, isa: str, count: int = ROWS) -> np.ndarray:
    rows = np.arange(count, dtype=np.int32)
    decoder = only_head(embedding, norm, isa)
    return decoder.forward(rows, rows * 0, rows, rows).astype(np.float64)


def error(found: np.ndarray, wanted: np.ndarray) -> np.ndarray:
    """Of each column, relative to its size."""
    return np.sqrt(np.mean((found - wanted) ** 2, axis=0) / np.mean(wanted**2, axis=0))


def rounded_products(embedding: np.ndarray, norm: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The same exactly, and from activations rounded to bf16, as PyTorch and llama.cpp have it."""
    x = floats(embedding).astype(np.float64)[:ROWS]
    x *= floats(norm) / np.sqrt(np.mean(x**2, axis=1, keepdims=True) + SPEC.rms_eps)
    matrix = floats(embedding).astype(np.float64).T
    return x @ matrix, torch.tensor(x).bfloat16().double().numpy() @ matrix


def kept(matrix: np.ndarray, wanted: int) -> tuple[int, np.ndarray]:
    """In which format a matrix is kept where that one is ``wanted`` (0: as it is), and its weights
    as float32 [columns, k]."""
    columns, k = matrix.shape
    part = Part((Piece("w"),), columns, k, "bf16")
    room = part_bytes(part, 2)
    most = room + (room // 32 if wanted == SIXTEEN else 0)  # as ``packing.pack`` has it
    data = zeroed(most + 4096)
    length, number = pack_part(part, room, {"w": matrix}, data, 2, wanted)
    assert length <= most
    out = np.zeros((columns, k), np.float32)
    for column in range(columns):
        to = out[column].ctypes.data
        native().unpack_column(number or BF16, data.ctypes.data, k, column, to)
    return number, out
