"""Packing a checkpoint's tensors into one blob, kept on disk and mapped from there.

A cached blob is ``HEADER`` (magic, bytes, checksum), padded to 4096 bytes, then the weights, a page
of zeros, since kernels fetch a little behind the end, and the offsets of the parts.

bf16 matrices are kept in other numbers (twelve.h, twelve_fp16.h, sixteen.h) where the instruction
set multiplies these faster and their values allow it: how long a part is depends on them.
"""

from __future__ import annotations

import ctypes
import hashlib
import mmap
import os
import struct
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from atlasd_kernels.cpu.library import VERSION, Packing, native
from atlasd_kernels.spec import DecoderSpec

FORMATS = {"fp32": 0, "bf16": 1, "int8": 2, "int4": 3}
BF16 = FORMATS["bf16"]
TWELVE, FP16, SIXTEEN = 4, 5, 6
"""In which bf16 matrices may be kept instead; the first stands in for the second."""
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
class Packed:
    """A file as it lies in memory: a page for the header, then parts one behind the other.
    ``offsets`` is in the order that decoder.cpp reads: -1: not there; more than a multiple of 64
    by a format's number: kept in that format."""

    file: Bytes
    offsets: list[int] = field(default_factory=list)
    size: int = 0
    """Bytes behind the header's page."""

    @property
    def blob(self) -> Bytes:
        """What is behind the header's page: from there offsets count."""
        return self.file[PAGE:]

    def place(self, length: int, kept: int = 0) -> None:
        self.offsets.append(self.size + kept)
        self.size += round_up(length, 64)

    def finish(self) -> None:
        """Put the offsets behind everything, which ends with them."""
        table = np.array(self.offsets, np.int64).view(np.uint8)
        self.size += PAGE + len(table)
        self.file = self.file[: PAGE + self.size]
        self.file[-len(table) :] = table


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


def source_kind(array: npt.NDArray[Any]) -> int:
    kinds = {"float32": 0, "uint16": 1, "float16": 2}
    if array.dtype.name not in kinds:
        raise ValueError(f"weights must be float32, float16 or raw bfloat16, not {array.dtype}")
    return kinds[array.dtype.name]


def as_float32(array: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    if array.dtype == np.uint16:
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32)


def pack_matrix(part: Part, tensors: Tensors, data: Bytes, threads: int) -> None:
    """Write a matrix into ``data``, which starts out zeroed."""
    assert part.format is not None
    for piece in part.pieces:
        array = np.ascontiguousarray(tensors[piece.name])
        rows, k = array.shape
        if k != part.k or rows > part.columns:
            raise ValueError(f"{piece.name} has shape {array.shape}")
        packing = Packing(
            FORMATS[part.format],
            source_kind(array),
            array.ctypes.data,
            rows,
            k,
            data.ctypes.data,
            piece.start,
            int(piece.paired),
        )
        native().pack(ctypes.byref(packing), threads)


def copy_floats(part: Part, tensors: Tensors, data: Bytes) -> None:
    """Write tensors that are no matrices, or an embedding as it is, into ``data``."""
    for piece in part.pieces:
        array = np.ascontiguousarray(tensors[piece.name])
        flat = array.reshape(-1) if part.raw else as_float32(array).reshape(-1)
        first = 4 * piece.start
        data[first : first + flat.nbytes] = flat.view(np.uint8)


def pack_part(
    part: Part, length: int, tensors: Tensors, data: Bytes, threads: int, kept: int
) -> tuple[int, int]:
    """Write a part into ``data``, zeros that have room for ``length``. Returns the bytes it takes
    and, if it is kept in other numbers, the format's, else 0."""
    if part.format is None:
        copy_floats(part, tensors, data)
        return length, 0
    if part.format != "bf16" or kept == BF16:
        pack_matrix(part, tensors, data, threads)
        return length, 0
    whole = zeroed(length)
    pack_matrix(part, tensors, whole, threads)
    for number in (FP16, TWELVE) if kept == FP16 else (kept,):
        short: int = native().shorten(
            number, whole.ctypes.data, part.columns, part.k, data.ctypes.data, threads
        )
        if short:
            return short, number
    data[:length] = whole[:length]
    return length, 0


def pack(
    spec: DecoderSpec, tensors: Tensors, weight_format: str, *, threads: int, kept: int
) -> Packed:
    """All weights of a decoder; ``kept``: the format's number that bf16 matrices are kept in."""
    kind = embedding_kind(spec, tensors)
    parts = list(matrices(spec, weight_format))
    lengths = [part_bytes(part, 4 if kind == 0 else 2) if part else 0 for part in parts]
    room = sum(round_up(length, 64) for length in lengths) + PAGE + 8 * len(parts)
    if kept == SIXTEEN:
        room += room // 32  # for the groups' units
    packed = Packed(zeroed(PAGE + room))
    for part, length in zip(parts, lengths, strict=True):
        if part is None:
            packed.offsets.append(-1)
            continue
        data = packed.blob[packed.size :]
        packed.place(*pack_part(part, length, tensors, data, threads, kept))
    packed.finish()
    return packed


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


def cache_path(
    cache_dir: Path, identity: str, spec: DecoderSpec, weight_format: str, kept: int
) -> Path:
    key = f"{VERSION} {weight_format} {kept} {spec!r} {identity}".encode()
    return cache_dir / f"packed-{hashlib.sha256(key).hexdigest()[:32]}.bin"


def read_cached(path: Path, parts: int) -> Packed | None:
    """The weights in a cached file, mapped, so that processes share them; None if the file is
    missing, cut short or damaged."""
    try:
        with path.open("rb") as file:
            header = file.read(HEADER.size)
            if len(header) != HEADER.size:
                return None
            magic, version, size, checksum = HEADER.unpack(header)
            if (magic, version) != (MAGIC, VERSION):
                return None
            if os.fstat(file.fileno()).st_size != PAGE + size or size < 8 * parts:
                return None
            memory = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except OSError:
        return None
    ask_for_huge_pages(memory)
    packed = Packed(np.frombuffer(memory, dtype=np.uint8), size=size)
    if native().checksum(packed.blob.ctypes.data, size) != checksum:
        return None
    packed.offsets = np.frombuffer(packed.blob[size - 8 * parts :].tobytes(), np.int64).tolist()
    return packed


def write_cache(path: Path, packed: Packed) -> None:
    """Write a new file and move it to ``path`` in one step, so that no reader sees half of it.

    It is written in one piece, not through a mapping: then the system keeps it in huge pages,
    which every process that maps it has the use of.
    """
    checksum = native().checksum(packed.blob.ctypes.data, packed.size)
    header = HEADER.pack(MAGIC, VERSION, packed.size, checksum)
    packed.file[: HEADER.size] = np.frombuffer(header, dtype=np.uint8)
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with beside.open("wb") as file:
            file.write(packed.file.data)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def embedding_kind(spec: DecoderSpec, tensors: Tensors) -> int:
    """The kind of the untied embedding; -1: tied."""
    return -1 if spec.tied else source_kind(tensors["model.embed_tokens.weight"])


def load_packed(
    spec: DecoderSpec,
    tensors: Tensors,
    weight_format: str,
    *,
    threads: int,
    isa: str | None,
    cache_dir: Path | None,
    identity: str | None,
) -> tuple[Packed, int]:
    """The weights as this instruction set (None: the best) reads them, and the kind of the
    embedding."""
    kept = BF16
    if weight_format == "bf16":
        kept = native().kept_format(isa.encode() if isa else None)
    path = None
    if cache_dir is not None and identity is not None:
        path = cache_path(cache_dir, identity, spec, weight_format, kept)
        parts = sum(1 for _ in matrices(spec, weight_format))
        if (found := read_cached(path, parts)) is not None:
            with suppress(OSError):
                os.utime(path)  # opened last
            return found, embedding_kind(spec, tensors)
    packed = pack(spec, tensors, weight_format, threads=threads, kept=kept)
    if path is not None:
        with suppress(OSError):  # a full or read-only disk must not keep anybody from decoding
            write_cache(path, packed)
            packed = read_cached(path, parts) or packed
    return packed, embedding_kind(spec, tensors)
