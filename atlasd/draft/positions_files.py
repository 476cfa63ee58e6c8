"""The position index as a file beside the database, so that a restart is warm.

Layout: one line of JSON (tokenizer, sizes, segments, holes and which parts of them are free), then
the arrays' used parts as raw little-endian bytes, then the CRC-32 of all that. A file of another
tokenizer, or a damaged one, is ignored.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from atlasd.draft.drafter import Int32
from atlasd.draft.ngrams import ORDERS
from atlasd.draft.positions_index import PositionIndex
from atlasd.draft.segments import Piece, Run, Segment

log = logging.getLogger(__name__)

FORMAT = 2
_CHECKSUM = struct.Struct("<I")


def save(index: PositionIndex, path: Path, fingerprint: str) -> None:
    """Write the index; the file appears whole or not at all, and of an empty index there is none,
    nor where there is no room: an older one might hold what has been purged since.
    Nobody waits for the disk: after a power cut the checksum tells what it has not got, and the
    index is made anew."""
    index.link_all()  # the file is of a moment, and what is not linked then is out of reach
    used = index.arena.used
    segments = [segment for segment in index if segment.kind != "stream" and segment.pieces]
    if not segments:
        # After a purge the tables still lead to places where something was.
        path.unlink(missing_ok=True)
        return
    holes = _holes(index, segments)
    # What is free still holds the tokens of prompts, and of what had to be forgotten.
    tokens = index.tokens[:used].copy()
    for start, stop in holes:
        tokens[start:stop] = 0
    header = {
        "format": FORMAT,
        "fingerprint": fingerprint,
        "orders": ORDERS,
        "used": used,
        "clock": index.clock,
        "heads": [len(table.heads) for table in index.tables],
        "holes": holes,
        "free": index.arena.holes,
        "segments": [_packed(segment) for segment in segments],
    }
    partial = path.with_suffix(".partial")
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(index, partial, header, tokens)
        partial.replace(path)
    except OSError as error:
        log.warning("the position index could not be written: %s", error)
        for left in (partial, path):
            with contextlib.suppress(OSError):
                left.unlink(missing_ok=True)


def _write(index: PositionIndex, path: Path, header: dict[str, Any], tokens: Int32) -> None:
    with open(path, "wb", opener=lambda p, flags: os.open(p, flags, 0o600)) as file:
        line = json.dumps(header, separators=(",", ":")).encode() + b"\n"
        links = [table.previous[: len(tokens)] for table in index.tables]
        arrays = [tokens, *links, *(table.heads for table in index.tables)]
        parts: list[bytes | memoryview] = [line, *(array.data for array in arrays)]
        checksum = 0
        for part in parts:
            file.write(part)
            checksum = zlib.crc32(part, checksum)
        file.write(_CHECKSUM.pack(checksum))


def load(index: PositionIndex, path: Path, fingerprint: str) -> bool:
    """Fill an empty index from a file; False (and an empty index) if it does not fit."""
    try:
        with open(path, "rb") as file:
            line = file.readline()
            header = json.loads(line)
            if not _fits(header, index, fingerprint):
                return False
            used = header["used"]
            arrays = [index.tokens, *(table.previous for table in index.tables)]
            counts = [used] * len(arrays) + header["heads"]
            if path.stat().st_size != file.tell() + 4 * sum(counts) + _CHECKSUM.size:
                return False
            heads = [np.empty(count, np.int32) for count in header["heads"]]
            parts = [array[:used] for array in arrays] + heads
            checksum = zlib.crc32(line)
            for part in parts:
                file.readinto(part.data)
                checksum = zlib.crc32(part.data, checksum)
            if file.read() != _CHECKSUM.pack(checksum):
                return False
    except (OSError, ValueError, KeyError, TypeError):
        return False
    for table, of_table in zip(index.tables, heads, strict=True):
        table.set_heads(of_table)
    index.arena.used = used
    index.clock = header["clock"]
    free = header.get("free", [])
    for start, stop in _without(header["holes"], free):
        index.stale(start, stop)
    for start, stop in free:
        index.arena.give(start, stop)
    for packed in header["segments"]:
        _restore(index, packed)
    return True


def _fits(header: dict[str, Any], index: PositionIndex, fingerprint: str) -> bool:
    return bool(
        header["format"] == FORMAT
        and header["fingerprint"] == fingerprint
        and tuple(header["orders"]) == ORDERS
        and header["used"] <= index.arena.capacity
    )


def _holes(index: PositionIndex, kept: list[Segment]) -> list[tuple[int, int]]:
    """What is free once only the kept segments live: the gaps between their runs."""
    runs = sorted((run.start, run.stop) for segment in kept for run in segment.runs)
    holes, at = [], 0
    for start, stop in [*runs, (index.arena.used, index.arena.used)]:
        if start > at:
            holes.append((at, start))
        at = stop
    return holes


def _without(
    holes: list[tuple[int, int]], free: list[tuple[int, int]]
) -> Iterator[tuple[int, int]]:
    """The parts of holes that chains may still lead to: what was free is out of them already."""
    parts = iter(free)
    begin, end = next(parts, (-1, -1))
    for start, stop in holes:
        while start <= begin < stop:
            if start < begin:
                yield start, begin
            start = end
            begin, end = next(parts, (-1, -1))
        if start < stop:
            yield start, stop


def _packed(segment: Segment) -> list[Any]:
    return [
        segment.name,
        segment.repository,
        segment.kind,
        segment.language,
        segment.generation,
        segment.updated,
        segment.credit,
        [[piece.start, piece.stop] for piece in segment.pieces],
        [[run.start, run.stop] for run in segment.runs],
    ]


def _restore(index: PositionIndex, packed: list[Any]) -> None:
    segment = Segment(*packed[:7])
    segment.set_pieces([Piece(start, stop) for start, stop in packed[7]])
    for start, stop in packed[8]:
        run = Run(start, stop, segment, len(index.runs))
        index.runs.append(run)
        index.run_of[start:stop] = run.number
        segment.runs.append(run)
    index.segments[segment.repository, segment.name] = segment
