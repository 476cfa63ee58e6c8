"""Choosing the target's own next token, and its top choices, from rows of logits."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Int32 = npt.NDArray[np.int32]
Float32 = npt.NDArray[np.float32]


def choose(
    logits: Float32,
    *,
    temperature: Float32 | float = 0.0,
    seed: npt.NDArray[np.uint64] | int = 0,
    choice: Int32 | int = 0,
    output_index: Int32 | int = 0,
) -> Int32:
    """Token per row of logits [L, vocab]; every argument may be given per row [L].

    Temperature 0 is argmax, ties to the lowest id. Otherwise argmax of
    ``logit / temperature + gumbel_noise(seed, choice, output_index, id)``. Masked tokens are
    handed in as -inf.
    """
    raise NotImplementedError


def gumbel_noise(seed: int, choice: int, output_index: int, vocab_size: int) -> Float32:
    """The noise of one row, in numpy: what ``choose`` adds, to float32 rounding of two logs.

    Philox4x32-10 with key (seed low, seed high) and counter (id // 4, output_index, choice, 0);
    word id % 4 of its output, x, gives u = (x // 512 + 0.5) / 2**23 and the noise -log(-log(u)).
    """
    raise NotImplementedError


def top_k(logits: Float32, k: int) -> tuple[Int32, Float32, Float32]:
    """Per row of logits [L, vocab]: ids [L, k] best first, their log-probabilities [L, k], and
    the log-sum-exp [L]. Ties go to the lowest id."""
    raise NotImplementedError
