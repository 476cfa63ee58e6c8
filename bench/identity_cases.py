"""Random requests for ``bench.identity``: prompts, samplings, constraints and predictions."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from llguidance import LLMatcher

from atlasd.draft.constraint import Constraint
from atlasd.engine.protocol import Sampling

MOST_STREAMS = 8
SAMPLINGS: tuple[dict[str, Any], ...] = (
    {},
    {},
    {"temperature": 0.8},
    {"temperature": 1.0, "top_p": 0.9, "top_k": 50},
    {"temperature": 0.7, "repetition_penalty": 1.2},
    {"presence_penalty": 0.5, "frequency_penalty": 0.2},
)
SCHEMA = {
    "type": "object",
    "properties": {
        "name": {"enum": ["read_file", "write_file"]},
        "note": {"type": "string", "maxLength": 12},
        "lines": {"type": "array", "items": {"type": "integer", "maximum": 999}, "maxItems": 4},
    },
    "required": ["name", "note", "lines"],
    "additionalProperties": False,
}
GRAMMARS = {
    "json": LLMatcher.grammar_from_json_schema(
        json.dumps(SCHEMA), None, {"whitespace_pattern": " ?"}
    ),
    "regex": LLMatcher.grammar_from_regex("(alpha|beta) is [0-9]{2,5}; that is all"),
    # tool calls behind free text
    "calls": LLMatcher.grammar_from_lark(
        'start: TEXT | lead call (";" call)*\nTEXT: /[^{]{0,30}/\nlead: /[^{]{0,9}/\n'
        'call: "{f: " %json {"type": "boolean"} "}"'
    ),
}


@dataclass(frozen=True)
class Case:
    """One request."""

    prompt: list[int]
    count: int
    sampling: Sampling
    constraint: Constraint | None
    prediction: list[int]
    learn: bool


class Cases:
    """Draws requests over ``texts``; ``held`` makes a constraint of a grammar."""

    def __init__(
        self,
        texts: Sequence[list[int]],
        held: Callable[[str], Constraint],
        draw: random.Random,
    ) -> None:
        self._texts, self._draw = texts, draw
        self._constraints = [held(grammar) for grammar in GRAMMARS.values()]

    def together(self) -> list[Case]:
        """The requests that are decoded together in one case."""
        return [self._one() for _ in range(self._draw.randint(1, MOST_STREAMS))]

    def _one(self) -> Case:
        draw = self._draw
        text = draw.choice(self._texts)
        at, length = draw.randrange(len(text) - 32), draw.randint(2, 200)
        count = draw.randint(4, 40)
        prediction: list[int] = []
        if draw.random() < 0.3:
            prediction = text[at + length : at + length + count]
            if prediction and draw.random() < 0.5:
                del prediction[draw.randrange(len(prediction))]
        constraint = draw.choice(self._constraints).copy() if draw.random() < 0.25 else None
        return Case(
            text[at : at + length],
            count,
            Sampling(seed=draw.randrange(2**32), **draw.choice(SAMPLINGS)),
            constraint,
            prediction,
            draw.random() < 0.8,
        )
