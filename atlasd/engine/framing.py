"""Messages as frames on a stream socket: a 4-byte little-endian length, then msgpack."""

from __future__ import annotations

import asyncio
import socket
import sys
from array import array
from collections.abc import Sequence

import msgspec

from atlasd.engine.protocol import HEADER_BYTES, FromEngine, ToEngine

LARGEST_FRAME = 1 << 28
"""Longer frames mean that the two ends have lost step with each other."""

_encoder = msgspec.msgpack.Encoder()
_to_engine: msgspec.msgpack.Decoder[ToEngine] = msgspec.msgpack.Decoder(ToEngine)
_from_engine: msgspec.msgpack.Decoder[FromEngine] = msgspec.msgpack.Decoder(FromEngine)


def pack_tokens(tokens: Sequence[int]) -> bytes:
    """Token ids as they travel: raw little-endian int32. Without numpy, whose import the daemon's
    first answer would wait for."""
    packed = array("i", tokens)
    if sys.byteorder == "big":
        packed.byteswap()
    return packed.tobytes()


def unpack_tokens(raw: bytes) -> list[int]:
    """The inverse of ``pack_tokens``."""
    ids = array("i", raw)
    if sys.byteorder == "big":
        ids.byteswap()
    return ids.tolist()


def frame(message: ToEngine | FromEngine) -> bytes:
    """One message as bytes ready to be written."""
    body = _encoder.encode(message)
    if len(body) > LARGEST_FRAME:
        raise ValueError(f"a message of {len(body)} bytes does not fit a frame")
    return len(body).to_bytes(HEADER_BYTES, "little") + body


def _body_length(header: bytes) -> int:
    length = int.from_bytes(header, "little")
    if length > LARGEST_FRAME:
        raise ConnectionError(f"a frame of {length} bytes was announced")
    return length


async def read_from_engine(reader: asyncio.StreamReader) -> FromEngine | None:
    """The daemon's end: the next message, or None once the engine has closed its end."""
    try:
        header = await reader.readexactly(HEADER_BYTES)
        return _from_engine.decode(await reader.readexactly(_body_length(header)))
    except (asyncio.IncompleteReadError, ConnectionError):
        return None


class EngineEnd:
    """The engine's end of the socket pair, blocking; one thread reads and one writes."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self._reader = sock.makefile("rb", buffering=1 << 16)

    def read(self) -> ToEngine | None:
        """The next message, or None once the daemon has closed its end or is gone."""
        try:
            header = self._reader.read(HEADER_BYTES)
            if len(header) < HEADER_BYTES:
                return None
            length = _body_length(header)
            body = self._reader.read(length)
        except OSError:
            return None
        return _to_engine.decode(body) if len(body) == length else None

    def write_some(self, frames: bytes) -> int:
        """Send as many bytes as there is room for, without waiting; returns how many. Raises
        OSError if the daemon is gone."""
        try:
            return self._socket.send(frames, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0

    def write(self, frames: bytes) -> None:
        """Send whole frames; raises OSError if the daemon is gone."""
        self._socket.sendall(frames)

    def close(self) -> None:
        """Close both the reading side and the socket."""
        self._reader.close()
        self._socket.close()
