"""The target's own next token at a row: argmax, or argmax with counter-based Gumbel noise.

The order is that of the common servers: bias, repetition, presence and frequency penalties,
temperature, top-k, top-p, min-p, then the choice. A token depends on its row's logits, the row's
own history and the request, and on nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
from atlasd_kernels.noise import gumbel, gumbel_row

from atlasd.engine.protocol import Alternative, Sampling, TokenLogprob
from atlasd.errors import EngineError, RequestError

Float32 = npt.NDArray[np.float32]
Int64 = npt.NDArray[np.int64]

FEW = 2048
"""Up to this many candidates the noise is computed for them alone."""

ChooseRow = Callable[[Float32, float, int, int, int], int]
"""Token of a row of logits [vocab] given temperature, seed, choice and output index."""


def choose_row(logits: Float32, temperature: float, seed: int, choice: int, index: int) -> int:
    """argmax of logit / temperature + noise over a whole row; ties go to the lowest id."""
    scores = logits / np.float32(temperature) + gumbel_row(seed, choice, index, len(logits))
    return int(scores.argmax())


def check_sampling(sampling: Sampling, vocab_size: int) -> None:
    """Raise RequestError for values that mean nothing."""
    rules = {
        "temperature": 0 <= sampling.temperature < math.inf,
        "top_p": 0 < sampling.top_p <= 1,
        "top_k": sampling.top_k >= 0,
        "min_p": 0 <= sampling.min_p <= 1,
        "repetition_penalty": 0 < sampling.repetition_penalty < math.inf,
        "presence_penalty": math.isfinite(sampling.presence_penalty),
        "frequency_penalty": math.isfinite(sampling.frequency_penalty),
        "logit_bias": all(
            0 <= token < vocab_size and not math.isnan(bias)
            for token, bias in sampling.logit_bias.items()
        ),
    }
    for name, holds in rules.items():
        if not holds:
            raise RequestError(f"{name} is out of range.", "See docs/api.md for what it may be.")


class Sampler:
    """Chooses the tokens of one stream. The stream's history is told to it once, by ``accept``."""

    def __init__(
        self,
        sampling: Sampling,
        prompt: Sequence[int],
        vocab_size: int,
        choose: ChooseRow = choose_row,
    ) -> None:
        check_sampling(sampling, vocab_size)
        self._sampling = sampling
        self._choose = choose
        self._seed = sampling.seed % 2**64
        self._bias_ids = np.array(list(sampling.logit_bias), dtype=np.int64)
        self._bias = np.array(list(sampling.logit_bias.values()), dtype=np.float32)
        self._repeats = sampling.repetition_penalty != 1.0
        self._counts = sampling.presence_penalty != 0.0 or sampling.frequency_penalty != 0.0
        self._seen = {t for t in prompt if 0 <= t < vocab_size} if self._repeats else set()
        self._output: dict[int, int] = {}
        self._outputs = 0
        self.best: list[int] = []
        """The likeliest token of the first rows in the last ``match``: of as many as were looked at
        as they are."""
        self._adjusts = bool(sampling.logit_bias) or self._repeats or self._counts
        self._filters = sampling.top_k > 0 or sampling.top_p < 1.0 or sampling.min_p > 0.0
        self.plain = sampling.temperature == 0.0 and not self._adjusts

    @property
    def drawn(self) -> tuple[float, int, int] | None:
        """(temperature, seed, choice) where these and a row's logits decide its token; None where
        penalties, biases or filters have a say."""
        if self._adjusts or (self._filters and self._sampling.temperature > 0.0):
            return None
        return self._sampling.temperature, self._seed, self._sampling.choice

    @property
    def outputs(self) -> int:
        """Tokens put out so far: the output index of the next one."""
        return self._outputs

    def match(self, logits: Float32, draft: Sequence[int]) -> list[int]:
        """The target's tokens for rows of logits [1 + len(draft), vocab], up to and including the
        first that differs from the draft."""
        if self.plain:
            return self._match_greedy(logits, draft)
        self.best = []
        chosen: list[int] = []
        for row, drafted in zip(logits, [*draft, -1], strict=True):
            chosen.append(self._row(row, draft[: len(chosen)]))
            if chosen[-1] != drafted:
                break
        return chosen

    def _match_greedy(self, logits: Float32, draft: Sequence[int]) -> list[int]:
        if len(logits) == 1:  # a plain step: as quick as can be
            row = logits[0]
            chosen = [int(row.argmax())]
            self.best = chosen
        else:
            best: list[int] = logits.argmax(axis=1).tolist()
            self.best = best
            chosen = best[: agreeing(best, draft) + 1]
        _refuse_nan(float(logits[len(chosen) - 1, chosen[-1]]))
        return chosen

    def accept(self, tokens: Sequence[int]) -> None:
        """These tokens were verified and belong to the stream's history from now on."""
        self._outputs += len(tokens)
        if self._repeats:
            self._seen.update(tokens)
        if self._counts:
            for token in tokens:
                self._output[token] = self._output.get(token, 0) + 1

    def _row(self, logits: Float32, drafted: Sequence[int]) -> int:
        if self._adjusts:
            logits = self._adjusted(logits, drafted)
        best = int(logits.argmax())
        if not self._adjusts:
            self.best.append(best)
        _refuse_nan(float(logits[best]))
        temperature = self._sampling.temperature
        if temperature == 0.0:
            return best
        index = self._outputs + len(drafted)
        if not self._filters:
            return self._choose(logits, temperature, self._seed, self._sampling.choice, index)
        scores = logits / np.float32(temperature)
        kept = kept_tokens(scores, self._sampling.top_k, self._sampling.top_p, self._sampling.min_p)
        if len(kept) > FEW:
            masked = np.full_like(logits, -np.inf)
            masked[kept] = logits[kept]
            return self._choose(masked, temperature, self._seed, self._sampling.choice, index)
        noise = gumbel(self._seed, self._sampling.choice, index, kept)
        return int(kept[(scores[kept] + noise).argmax()])

    def _adjusted(self, logits: Float32, drafted: Sequence[int]) -> Float32:
        """The row after bias and penalties, its own history being output plus ``drafted``."""
        sampling = self._sampling
        row = logits.copy()
        if len(self._bias_ids):
            row[self._bias_ids] += self._bias
        if self._repeats:
            seen = np.fromiter(self._seen.union(drafted), dtype=np.int64)
            values, penalty = row[seen], np.float32(sampling.repetition_penalty)
            row[seen] = np.where(values < 0, values * penalty, values / penalty)
        if self._counts:
            counts = dict(self._output)
            for token in drafted:
                counts[token] = counts.get(token, 0) + 1
            ids = np.fromiter(counts, dtype=np.int64)
            times = np.fromiter(counts.values(), dtype=np.float32)
            presence = np.float32(sampling.presence_penalty)
            row[ids] -= presence + times * np.float32(sampling.frequency_penalty)
        return row


def kept_tokens(scores: Float32, top_k: int, top_p: float, min_p: float) -> Int64:
    """Ids, ascending, that top-k, top-p and min-p leave of a row of scores [vocab] (logits over
    temperature). Tokens tied with the k-th stay; at least one token stays."""
    kept = np.flatnonzero(scores > -np.inf)
    if not len(kept):
        # Behind a drafted end of a constrained text: what is chosen there is cut off.
        return np.zeros(1, np.int64)
    if 0 < top_k < len(kept):
        threshold = np.partition(scores[kept], -top_k)[-top_k]
        kept = kept[scores[kept] >= threshold]
    if top_p < 1.0:
        kept = _nucleus(scores, kept, top_p)
    if min_p > 0.0:
        kept = kept[scores[kept] >= scores[kept].max() + math.log(min_p)]
    return kept


def _nucleus(scores: Float32, kept: Int64, top_p: float) -> Int64:
    """The smallest set of the likeliest tokens whose probability reaches ``top_p``."""
    values = scores[kept].astype(np.float64)
    weights = np.exp(values - values.max())
    enough = top_p * weights.sum()
    # Sorting a whole vocabulary takes longer than a step: the nucleus is among the first few
    # nearly always. The sums run in the same order either way, so the cut is the same.
    size = min(512, len(kept))
    while True:
        if size < len(kept):
            likely = np.argpartition(-weights, size - 1)[:size]
            likely = np.flatnonzero(weights >= weights[likely].min())
        else:
            likely = np.arange(len(kept))
        order = likely[np.argsort(-weights[likely], kind="stable")]
        sums = np.cumsum(weights[order])
        if sums[-1] >= enough or len(order) == len(kept):
            count = int(np.searchsorted(sums, enough)) + 1
            ids: Int64 = np.sort(kept[order[:count]])
            return ids
        size *= 8


def logprobs_of(logits: Float32, token: int, alternatives: int) -> TokenLogprob:
    """Log-probability of a token at temperature 1, before penalties, and of the likeliest ones."""
    row = logits.astype(np.float64)
    row -= row.max()
    row -= math.log(float(np.exp(row).sum()))
    top: list[Alternative] = []
    if alternatives > 0:
        count = min(alternatives, len(row))
        likely = np.argpartition(-row, count - 1)[:count]
        likely = np.flatnonzero(row >= row[likely].min())
        order = likely[np.argsort(-row[likely], kind="stable")][:count]
        top = [Alternative(int(other), float(row[other])) for other in order]
    return TokenLogprob(float(row[token]), top)


def top_choices(
    logits: Float32, count: int
) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """Per row of logits [R, vocab]: the likeliest ids [R, count], best first with ties to the
    lowest id, and their log-probabilities at temperature 1."""
    likely = np.argpartition(-logits, count - 1, axis=1)[:, :count]
    likely.sort(axis=1)
    values = np.take_along_axis(logits, likely, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    best = np.take_along_axis(values, order[:, :1], axis=1)
    totals = np.log(np.exp(logits - best).sum(axis=1, keepdims=True)) + best
    ids = np.take_along_axis(likely, order, axis=1).astype(np.int32)
    return ids, (np.take_along_axis(values, order, axis=1) - totals).astype(np.float32)


def agreeing(chosen: Sequence[int], draft: Sequence[int]) -> int:
    """How many leading tokens of a draft are the chosen ones."""
    count = 0
    for one, other in zip(chosen, draft, strict=False):
        if one != other:
            break
        count += 1
    return count


def damaged() -> EngineError:
    """What is said of a model that answers with what is no number."""
    return EngineError("The model produced no number.", "Its files may be damaged.")


def _refuse_nan(best: float) -> None:
    # argmax returns the first NaN of a row, so looking at the winner is enough.
    if math.isnan(best):
        raise damaged()
