"""A decoder whose logits are a hash of everything that an exact one's bits may depend on.

Each slot position remembers (token, position, written by prefill or by decoding), and a row's
logits are drawn from the hash of all positions up to its own. So a stale, shifted or wrongly
reused position changes the output at once, where real weights might hide it. It also holds the
engine to the contract of ``Decoder``.
"""

from __future__ import annotations

import hashlib

import numpy as np

from atlasd.models.decoder import Float32, Int32


class HashDecoder:
    def __init__(
        self,
        *,
        vocab_size: int = 50,
        slots: int = 4,
        slot_tokens: int = 200,
        chunk: int = 1,
        prefill_rows: int | None = None,
        tile: int = 1,
    ) -> None:
        self.vocab_size = vocab_size
        self.slots = slots
        self.slot_tokens = slot_tokens
        self.prefill_chunk = chunk
        self.prefill_rows = prefill_rows or 2 * chunk
        self.tile = tile
        self.calls: list[tuple[str, int]] = []
        self.fail_on: int | None = None
        self._written: list[list[bytes]] = [[b""] * slot_tokens for _ in range(slots)]

    def bucket(self, rows: int) -> int:
        return -(-rows // self.tile) * self.tile

    def forward(
        self, tokens: Int32, slots: Int32, positions: Int32, wanted: Int32, *, prefill: bool = False
    ) -> Float32:
        assert len(tokens) == len(slots) == len(positions) > 0
        assert all(array.dtype == np.int32 for array in (tokens, slots, positions, wanted))
        assert positions.min() >= 0
        assert positions.max() < self.slot_tokens
        assert slots.min() >= 0
        assert slots.max() < self.slots
        for slot in set(slots.tolist()):
            assert (np.diff(positions[slots == slot]) == 1).all()
        if prefill:
            assert len(set(slots.tolist())) == 1
            assert positions[0] % self.prefill_chunk == 0
            assert len(tokens) <= self.prefill_rows
        self.calls.append(("prefill" if prefill else "decode", len(tokens)))
        if self.fail_on is not None and self.fail_on in tokens:
            raise RuntimeError("this token cannot be computed")
        kind = b"" if self.prefill_chunk == 1 else (b"p" if prefill else b"d")
        rows = []
        for index, (token, slot, position) in enumerate(
            zip(tokens.tolist(), slots.tolist(), positions.tolist(), strict=True)
        ):
            written = self._written[slot]
            written[position] = b"%d@%d%s" % (token, position, kind)
            if index in wanted:
                digest = hashlib.sha256(b",".join(written[: position + 1])).digest()
                generator = np.random.Generator(np.random.Philox(int.from_bytes(digest[:16])))
                rows.append(generator.normal(0, 2, self.vocab_size).astype(np.float32))
        if not rows:
            return np.zeros((0, self.vocab_size), dtype=np.float32)
        return np.stack(rows)

    def copy_prefix(self, source: int, target: int, length: int) -> None:
        self._written[target][:length] = self._written[source][:length]

    def memory_bytes(self) -> dict[str, int]:
        return {"weights": 0, "slots": 0, "scratch": 0}

    def close(self) -> None:
        self._written = []
