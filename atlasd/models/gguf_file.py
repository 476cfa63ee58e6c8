"""Reading GGUF: the metadata in memory, the tensors as a map of the file.

The format is llama.cpp's (docs/gguf.md in ggml). The ``gguf`` package reads it too, but builds
several arrays per vocabulary entry; the daemon reads a 152k vocabulary here in tens of megabytes
less. Dequantising is left to the ``gguf`` package.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from atlasd.errors import ModelError

MAGIC = b"GGUF"
STRING, ARRAY = 8, 9
SCALARS = {
    0: "B",
    1: "b",
    2: "H",
    3: "h",
    4: "I",
    5: "i",
    6: "f",
    7: "?",
    10: "Q",
    11: "q",
    12: "d",
}


@dataclass(frozen=True)
class GgufTensor:
    """Where a tensor lies. ``shape`` is row-major (the reverse of the file's order)."""

    shape: tuple[int, ...]
    type: int
    offset: int
    """Bytes from the start of the file."""


@dataclass(frozen=True)
class GgufFile:
    """Metadata and tensor directory of one GGUF file."""

    path: Path
    metadata: dict[str, Any] = field(repr=False)
    tensors: dict[str, GgufTensor] = field(repr=False)

    @property
    def architecture(self) -> str:
        return str(self.metadata.get("general.architecture", ""))

    def value(self, key: str, default: Any = None) -> Any:
        """The metadata value of ``{architecture}.{key}``."""
        return self.metadata.get(f"{self.architecture}.{key}", default)


class _Reader:
    """A cursor over the bytes of a file."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.at = 0

    def scalar(self, code: str) -> Any:
        (value,) = struct.unpack_from("<" + code, self.data, self.at)
        self.at += struct.calcsize("<" + code)
        return value

    def string(self) -> str:
        length = self.scalar("Q")
        if length > len(self.data) - self.at:
            raise ValueError("a string runs past the end of the file")
        raw = self.data[self.at : self.at + length]
        self.at += length
        return raw.decode("utf-8", "surrogateescape")

    def value(self, kind: int) -> Any:
        if kind == STRING:
            return self.string()
        if kind == ARRAY:
            return self.array()
        return self.scalar(SCALARS[kind])

    def array(self) -> list[Any]:
        kind = self.scalar("I")
        length = self.scalar("Q")
        if length > len(self.data) - self.at:
            raise ValueError("an array runs past the end of the file")
        if kind in SCALARS:
            code = f"<{length}{SCALARS[kind]}"
            values = list(struct.unpack_from(code, self.data, self.at))
            self.at += struct.calcsize(code)
            return values
        return [self.value(kind) for _ in range(length)]


def read_gguf(path: Path) -> GgufFile:
    """Read metadata and tensor directory. Raises ModelError for what is not readable GGUF."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            return _parse(path, _Reader(data))
    except FileNotFoundError:
        raise ModelError(f"There is no file {path}.", "Check the path.") from None
    except (ValueError, KeyError, struct.error, OSError) as error:
        raise ModelError(
            f"{path} is not a readable GGUF file ({error}).", "Download it again."
        ) from error


def architecture_of(path: Path) -> str:
    """The architecture alone, which stands first, so that no vocabulary is read; empty for what is
    no GGUF file."""
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            reader = _Reader(data)
            _read_counts(reader)
            if reader.string() == "general.architecture":
                return str(reader.value(reader.scalar("I")))
            return _parse(path, _Reader(data)).architecture
    except (ValueError, KeyError, struct.error, OSError):
        return ""


def _read_counts(reader: _Reader) -> tuple[int, int]:
    """How many tensors and metadata values there are. Raises ValueError for what is not GGUF."""
    if reader.data[:4] != MAGIC:
        raise ValueError("wrong magic number")
    reader.at = 4
    version = reader.scalar("I")
    if version not in (2, 3):
        raise ValueError(f"version {version}; 2 and 3 are read")
    return reader.scalar("Q"), reader.scalar("Q")


def _parse(path: Path, reader: _Reader) -> GgufFile:
    tensor_count, value_count = _read_counts(reader)
    metadata: dict[str, Any] = {}
    for _ in range(value_count):
        key = reader.string()
        metadata[key] = reader.value(reader.scalar("I"))
    found: list[tuple[str, tuple[int, ...], int, int]] = []
    for _ in range(tensor_count):
        name = reader.string()
        shape = tuple(reader.scalar("Q") for _ in range(reader.scalar("I")))
        found.append((name, shape[::-1], reader.scalar("I"), reader.scalar("Q")))
    alignment = int(metadata.get("general.alignment", 32))
    start = -(-reader.at // alignment) * alignment
    tensors = {name: GgufTensor(shape, kind, start + offset) for name, shape, kind, offset in found}
    return GgufFile(path, metadata, tensors)
