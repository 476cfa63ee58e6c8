"""Packing a checkpoint's tensors into one blob, kept on disk and mapped from there.

A cached blob is ``HEADER`` (magic, bytes, checksum), padded to 4096 bytes, then the weights.
"""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import os
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from atlasd_kernels.cpu.library import VERSION, Packing, native
from atlasd_kernels.spec import DecoderSpec

FORMATS = {"fp32": 0, "bf16": 1, "int8": 2, "int4": 3}
# The head decides every token and is read once a step: INT4 keeps it in eight bits.
HEAD_FORMATS = {"fp32": "fp32", "bf16": "bf16", "int8": "int8", "int4": "int8"}
MAGIC = b"atlasd-packed\0"
HEADER = struct.Struct("<14sHQQ")
PAGE = 4096
PRIVATE: dict[str, int] = (
    {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
)
"""Shared anonymous memory, mmap's own choice, would not get huge pages."""

Tensors = Mapping[str, npt.NDArray[Any]]
Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Piece:
    """One source tensor in a packed matrix: its columns begin at ``start``; ``paired`` sources
    alternate in runs of 16 (gate and up)."""

    name: str
    start: int = 0
    paired: bool = False


@dataclass(frozen=True)
class Part:
    """A stretch of the blob: a packed matrix, or plain floats if ``format`` is None."""

    pieces: tuple[Piece, ...]
    columns: int
    k: int
    format: str | None
    raw: bool = False
    """Kept in the source's own type, row by row: an embedding that is not the head."""


@dataclass
class Layout:
    """What lies where. ``offsets`` is in the order that decoder.cpp reads; -1: not there."""

    parts: list[tuple[int, Part]] = field(default_factory=list)
    offsets: list[int] = field(default_factory=list)
    size: int = 0

    def place(self, part: Part | None, size: int = 0) -> None:
        self.offsets.append(self.size if part else -1)
        if part:
            self.parts.append((self.size, part))
            self.size += -(-size // 64) * 64


def round_up(n: int, to: int) -> int:
    return -(-n // to) * to


def matrices(spec: DecoderSpec, weight_format: str) -> Iterator[Part | None]:
    """The parts of a decoder, in the order of the blob."""
    hidden, dim = spec.hidden_size, spec.head_dim
    embedding, head = "model.embed_tokens.weight", "lm_head.weight"
    tied = (Piece(embedding if spec.tied else head),)
    q, kv = spec.heads * dim, spec.kv_heads * dim

    def floats(name: str, count: int) -> Part:
        return Part((Piece(name),), count, 1, None)

    yield None if spec.tied else Part((Piece(embedding),), spec.vocab_size, hidden, None, raw=True)
    yield Part(tied, spec.vocab_size, hidden, HEAD_FORMATS[weight_format])
    yield floats("model.norm.weight", hidden)
    for i in range(spec.layers):
        at, mlp = f"model.layers.{i}.self_attn.", f"model.layers.{i}.mlp."
        starts = (("q", 0), ("k", q), ("v", q + kv))

        def joined(kind: str, at: str = at, starts: Any = starts) -> tuple[Piece, ...]:
            return tuple(Piece(f"{at}{name}_proj.{kind}", start) for name, start in starts)

        yield floats(f"model.layers.{i}.input_layernorm.weight", hidden)
        yield Part(joined("weight"), q + 2 * kv, hidden, weight_format)
        yield Part(joined("bias"), q + 2 * kv, 1, None) if spec.qkv_bias else None
        yield floats(f"{at}q_norm.weight", dim) if spec.qk_norm else None
        yield floats(f"{at}k_norm.weight", dim) if spec.qk_norm else None
        yield Part((Piece(f"{at}o_proj.weight"),), hidden, q, weight_format)
        yield floats(f"model.layers.{i}.post_attention_layernorm.weight", hidden)
        gate_up = (
            Piece(f"{mlp}gate_proj.weight", 0, True),
            Piece(f"{mlp}up_proj.weight", 16, True),
        )
        yield Part(gate_up, 2 * round_up(spec.intermediate_size, 16), hidden, weight_format)
        yield Part(
            (Piece(f"{mlp}down_proj.weight"),), hidden, spec.intermediate_size, weight_format
        )


def part_bytes(part: Part, raw_item: int) -> int:
    if part.raw:
        return part.columns * part.k * raw_item
    if part.format is None:
        return round_up(part.columns, 32) * 4
    panel: int = native().panel_bytes(FORMATS[part.format], part.k)
    return round_up(part.columns, 32) // 32 * panel


def lay_out(spec: DecoderSpec, weight_format: str, raw_item: int) -> Layout:
    layout = Layout()
    for part in matrices(spec, weight_format):
        layout.place(part, part_bytes(part, raw_item) if part else 0)
    layout.size += PAGE  # kernels prefetch a little behind the end
    return layout


def source_kind(array: npt.NDArray[Any]) -> int:
    kinds = {"float32": 0, "uint16": 1, "float16": 2}
    if array.dtype.name not in kinds:
        raise ValueError(f"weights must be float32, float16 or raw bfloat16, not {array.dtype}")
    return kinds[array.dtype.name]


def as_float32(array: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    if array.dtype == np.uint16:
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32)


def pack(layout: Layout, tensors: Tensors, blob: Bytes, threads: int) -> None:
    """Write every part of the layout into ``blob``, which starts out zeroed."""
    library = native()
    for offset, part in layout.parts:
        for piece in part.pieces:
            array = np.ascontiguousarray(tensors[piece.name])
            kind = source_kind(array)
            if part.raw:
                flat = array.reshape(-1).view(np.uint8)
                blob[offset : offset + flat.size] = flat
            elif part.format is None:
                floats = as_float32(array).reshape(-1)
                first = offset + 4 * piece.start
                blob[first : first + floats.nbytes] = floats.view(np.uint8)
            else:
                rows, k = array.shape
                if k != part.k or rows > part.columns:
                    raise ValueError(f"{piece.name} has shape {array.shape}")
                address = blob.ctypes.data + offset
                library.pack(
                    ctypes.byref(
                        Packing(
                            FORMATS[part.format],
                            kind,
                            array.ctypes.data,
                            rows,
                            k,
                            address,
                            piece.start,
                            int(piece.paired),
                        )
                    ),
                    threads,
                )


def zeroed(size: int) -> Bytes:
    """Anonymous memory at a page boundary, in huge pages where the system gives them."""
    memory = mmap.mmap(-1, size, **PRIVATE)
    ask_for_huge_pages(memory)
    return np.frombuffer(memory, dtype=np.uint8)


def ask_for_huge_pages(memory: mmap.mmap) -> None:
    """Rows beyond the first gain a tenth from them."""
    with suppress(OSError):  # a kernel without them
        if hasattr(mmap, "MADV_HUGEPAGE"):
            memory.madvise(mmap.MADV_HUGEPAGE)


def cache_path(cache_dir: Path, identity: str, spec: DecoderSpec, weight_format: str) -> Path:
    key = f"{VERSION} {weight_format} {spec!r} {identity}".encode()
    return cache_dir / f"packed-{hashlib.sha256(key).hexdigest()[:32]}.bin"


def read_cached(path: Path, size: int) -> Bytes | None:
    """The weights in a cached file, mapped, so that processes share them; None if the file is
    missing, cut short or damaged."""
    try:
        with path.open("rb") as file:
            header = file.read(HEADER.size)
            if os.fstat(file.fileno()).st_size != PAGE + size or len(header) != HEADER.size:
                return None
            magic, version, stored, checksum = HEADER.unpack(header)
            if (magic, version, stored) != (MAGIC, VERSION, size):
                return None
            memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError:
        return None
    ask_for_huge_pages(memory)
    blob: Bytes = np.frombuffer(memory, dtype=np.uint8)[PAGE:]
    return blob if native().checksum(blob.ctypes.data, size) == checksum else None


def write_cache(path: Path, size: int, fill: Callable[[Bytes], None]) -> None:
    """Fill a new file and move it to ``path`` in one step, so that no reader sees half of it.

    It is written in one piece, not through a mapping: then the system keeps it in huge pages,
    which every process that maps it has the use of.
    """
    whole = zeroed(PAGE + size)
    blob = whole[PAGE:]
    fill(blob)
    header = HEADER.pack(MAGIC, VERSION, size, native().checksum(blob.ctypes.data, size))
    whole[: HEADER.size] = np.frombuffer(header, dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            file.write(whole.data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def load_packed(
    spec: DecoderSpec,
    tensors: Tensors,
    weight_format: str,
    *,
    threads: int,
    cache_dir: Path | None,
    identity: str | None,
) -> tuple[Layout, Bytes, int]:
    """Layout, blob, and the kind of the untied embedding (-1: tied)."""
    kind = -1 if spec.tied else source_kind(tensors["model.embed_tokens.weight"])
    layout = lay_out(spec, weight_format, 4 if kind == 0 else 2)

    def fill(blob: Bytes) -> None:
        pack(layout, tensors, blob, threads)

    if cache_dir is not None and identity is not None:
        path = cache_path(cache_dir, identity, spec, weight_format)
        for _ in range(2):
            if (blob := read_cached(path, layout.size)) is not None:
                return layout, blob, kind
            try:
                write_cache(path, layout.size, fill)
            except OSError:
                break  # a full or read-only disk must not keep anybody from decoding
    blob = zeroed(layout.size)
    fill(blob)
    return layout, blob, kind
