"""What constraints allow at the rows of a step, found out while the target computes them."""

from __future__ import annotations

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor, wait

import numpy as np

from atlasd.engine.batch import Part
from atlasd.models.decoder import Float32


class Masks:
    """One thread beside the step loop's; there is none before the first constrained stream."""

    def __init__(self) -> None:
        self._pool: ThreadPoolExecutor | None = None

    def begin(self, parts: Iterable[Part]) -> None:
        """Start on the masks of these parts; call when their drafts are settled, and ``finish``
        before anything else is asked of their constraints."""
        for part in parts:
            constraint = part.stream.constraint
            if constraint is not None and part.logits:
                if self._pool is None:
                    self._pool = ThreadPoolExecutor(1, "masks")
                part.allowed = self._pool.submit(constraint.allowed, part.draft.tokens)

    @staticmethod
    def finish(parts: Iterable[Part]) -> None:
        """Wait until nothing is computed any more, also after the target has failed."""
        wait([part.allowed for part in parts if part.allowed is not None])


def masked(part: Part, logits: Float32) -> Float32:
    """The part's rows [R, vocab] with what is not allowed at -inf."""
    constraint = part.stream.constraint
    if constraint is None:
        return logits
    if part.allowed is None:
        allowed = constraint.allowed(part.draft.tokens)
    else:
        allowed = part.allowed.result()
    return np.where(allowed, logits, np.float32(-np.inf))
