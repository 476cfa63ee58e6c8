"""How much of a prediction an output has."""

from __future__ import annotations

import random
from difflib import SequenceMatcher

import pytest

from atlasd.engine.predicted import Predicted


def told(prediction: str, output: str, cut: int = 3) -> tuple[int, int]:
    predicted = Predicted([ord(c) for c in prediction])
    tokens = [ord(c) for c in output]
    for at in range(0, len(tokens), cut):
        predicted.feed(tokens[at : at + cut])
    return predicted.accepted, predicted.rejected


@pytest.mark.parametrize(
    ("prediction", "output", "accepted"),
    [
        ("abcdef", "abcdef", 6),
        ("abcdef", "abc", 3),
        ("abcdef", "xyz", 0),
        ("abcdef", "", 0),
        ("", "abc", 0),
        ("abcdef", "abXdef", 5),
        ("abcdef", "abXYcdef", 6),
        ("abcdef", "abef", 4),
        ("abcdef", "abcdefabc", 6),
    ],
)
def test_counts_what_the_output_has(prediction: str, output: str, accepted: int) -> None:
    assert told(prediction, output) == (accepted, len(prediction) - accepted)


@pytest.mark.parametrize("seed", range(20))
def test_a_rewrite_counts_about_as_much_as_a_careful_comparison(seed: int) -> None:
    draw = random.Random(seed)
    text = [draw.randrange(40) for _ in range(300)]
    output = list(text)
    for _ in range(6):
        at = draw.randrange(len(output) - 10)
        kind = draw.randrange(3)
        new = [draw.randrange(40) for _ in range(draw.randrange(1, 6))]
        output[at : at + (draw.randrange(1, 9) if kind else 0)] = new if kind < 2 else []
    predicted = Predicted(text)
    predicted.feed(output)
    best = sum(
        b.size for b in SequenceMatcher(None, text, output, autojunk=False).get_matching_blocks()
    )
    assert 0.9 * best - 5 <= predicted.accepted <= 1.1 * best + 5
    assert predicted.accepted + predicted.rejected == len(text)
