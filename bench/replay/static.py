"""The static drafter in replay: a small model reads the recorded text teacher-forced, once.

Where its first choice is the recorded token a chain goes on, so the chain up to its first error is
the one it would have drafted. What it would say behind that error is not known and never accepted:
it stands there as that token again, as likely as before, so that rows and drafting time are paid.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from atlasd.draft.drafter import Int32, StreamView
from atlasd.draft.lookahead import Chain, Lookahead
from atlasd.draft.neural import Neural
from atlasd.models.decoder import Decoder

_ROWS = 64
_CONTEXT = 384


class Readings:
    """First choices of a model at every token of recorded texts, and their probabilities."""

    def __init__(self, decoder: Decoder, head: Int32 | None = None) -> None:
        """``head``: the ids it can say, where those are not all."""
        self._decoder = decoder
        self._head = head
        self._known: dict[int, tuple[list[int], list[float]]] = {}

    def of(self, prompt: Sequence[int], text: Sequence[int]) -> tuple[list[int], list[float]]:
        """(choices, probabilities) for each token of ``text``, read behind the prompt's end."""
        key = hash((tuple(prompt[-_CONTEXT:]), tuple(text)))
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = self._read(prompt[-_CONTEXT:], text)
        return known

    def _read(self, prompt: Sequence[int], text: Sequence[int]) -> tuple[list[int], list[float]]:
        tokens = np.array([*prompt, *text], np.int32)
        choices: list[int] = []
        chances: list[float] = []
        for begin in range(0, len(tokens) - 1, _ROWS):
            chunk = tokens[begin : min(begin + _ROWS, len(tokens) - 1)]
            wanted = np.arange(max(0, len(prompt) - 1 - begin), len(chunk), dtype=np.int32)
            positions = np.arange(begin, begin + len(chunk), dtype=np.int32)
            logits = self._decoder.forward(chunk, np.zeros_like(chunk), positions, wanted)
            if len(wanted):
                if self._head is not None:
                    logits = logits[:, self._head]
                best = logits.argmax(1)
                top = logits[np.arange(len(best)), best]
                choices += (best if self._head is None else self._head[best]).tolist()
                chances += (1.0 / np.exp(logits - top[:, None]).sum(1)).tolist()
        return choices, chances


class Recorded:
    """A ``ChainModel`` that drafts from ``Readings`` along one recorded text at a time."""

    slots, slot_tokens, carries = 1, 1 << 20, False

    def __init__(self, token_ms: float) -> None:
        self.token_ms = token_ms
        self.spent_ms = 0.0
        """Of drafting, so far."""
        self.text: Sequence[int] = ()
        self.choices: Sequence[int] = ()
        self.chances: Sequence[float] = ()

    def read(self, tokens: Int32, slot: int, position: int) -> None:
        """Nothing: the text was read before."""

    def chain(self, ask: Lookahead) -> Chain:
        """The chain from where the stream and the drafts before this one are."""
        at, reach, last = ask.noise.output_index, 1.0, ask.tokens[-1]
        tokens: list[int] = []
        chances: list[float] = []
        if 0 < at <= len(self.text) and self.text[at - 1] != last:
            return tokens, chances  # behind a draft that is wrong already
        wrong = False
        while len(tokens) < ask.limit and at < len(self.choices):
            reach *= self.chances[at]
            if reach < ask.least and tokens:
                break
            tokens.append(self.choices[at])
            chances.append(self.chances[at])
            wrong = wrong or tokens[-1] != self.text[at]
            at += not wrong
        self.spent_ms += self.token_ms * (len(tokens) + 1)
        return tokens, chances

    def memory_bytes(self) -> dict[str, int]:
        """Nothing is held for drafting itself."""
        return {}


def bundled_readings() -> Readings:
    """The bundled static drafter, loaded to read."""
    from atlasd.draft.static import head_tokens
    from atlasd.models.load import LoadOptions, load_decoder
    from atlasd.models.locate import find_model
    from atlasd.paths import paths

    files = find_model(str(find_model(None, paths()).path.parent / "drafter"), paths())
    decoder = load_decoder(files, LoadOptions(slots=1, slot_tokens=4096, threads=1)).decoder
    return Readings(decoder, head_tokens(files.path))


class Eager(Neural):
    """Asked at every step, whatever it costs: for measuring its confidence."""

    def gain(self, stream: StreamView, reach: float, tokens_per_ms: float) -> float:
        """Always worth it."""
        return float("inf")


def static_drafter(token_ms: float, eager: bool = False) -> tuple[Neural, Recorded]:
    """A static drafter that costs so many milliseconds a token."""
    model = Recorded(token_ms)
    neural = (Eager if eager else Neural)(model, now=lambda: model.spent_ms / 1e3)
    neural.token_ms, neural.read_ms = token_ms, 0.0
    return neural, model
