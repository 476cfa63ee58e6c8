"""Steps that are decided where they are computed: a GPU hands back tokens instead of logits.

That needs a decoder that can, and streams whose tokens depend on nothing but a row's logits and
its noise: no penalties, filters, constraints or log-probabilities. One stream that needs more
takes the whole step the long way, which chooses the same tokens.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import cast

from atlasd.engine.batch import Batch
from atlasd.engine.sampling import damaged
from atlasd.models.decoder import DecidingDecoder, Decoder, Int32, RowNoise, Wanted

MOST_ROWS = 64


@dataclass(frozen=True)
class Decided:
    """What rows chose, in the place of their logits."""

    tokens: Int32
    """[R]"""

    top: Int32
    """The likeliest tokens [R, K], best first."""

    def __len__(self) -> int:
        return len(self.tokens)

    def __getitem__(self, rows: slice) -> Decided:
        return Decided(self.tokens[rows], self.top[rows])

    def match(self, draft: Sequence[int]) -> list[int]:
        """The chosen tokens up to and including the first that differs from the draft."""
        chosen: list[int] = self.tokens.tolist()
        for index, token in enumerate(draft):
            if chosen[index] != token:
                del chosen[index + 1 :]
                break
        if chosen[-1] < 0:
            raise damaged()
        return chosen


def decides(decoder: Decoder) -> bool:
    """Whether this decoder is a ``DecidingDecoder``."""
    return hasattr(decoder, "verify")


def decide(
    decoder: Decoder, batch: Batch, meanwhile: Callable[[], None] = lambda: None
) -> Decided | None:
    """Run the batch and let the device decide it; None, with nothing run, where it cannot.
    ``meanwhile`` is called while the device works."""
    if not decides(decoder) or batch.rows > MOST_ROWS:
        return None
    noise: list[RowNoise] = []
    parts: list[tuple[int, int]] = []
    for part in batch.parts:
        stream = part.stream
        drawn = stream.sampler.drawn
        if drawn is None or stream.constraint is not None or stream.logprobs >= 0:
            return None
        if part.logits:
            parts.append((len(noise), part.logits))
            first = stream.sampler.outputs
            noise += [RowNoise(*drawn, first + row) for row in range(part.logits)]
    tokens, slots, positions, rows = batch.arrays()
    wanted = Wanted(rows, noise, parts, meanwhile)
    verified = cast("DecidingDecoder", decoder).verify(tokens, slots, positions, wanted)
    return Decided(verified.tokens, verified.top_ids)
