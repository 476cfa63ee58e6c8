"""Confidence is calibrated, adapts, recovers, and comes back after a restart."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from atlasd.draft.confidence import Confidence, Scope
from atlasd.draft.drafter import StreamView
from atlasd.draft.registry import Drafting


class FlatCosts:
    """A step costs 10 ms up to 16 rows."""

    def ms(self, rows: int, kv_tokens: int) -> float:
        return 10.0 if rows <= 16 else 20.0

    def bucket(self, rows: int) -> int:
        return 16 if rows <= 16 else 32


def stream_predictions(
    confidence: Confidence, scope: Scope, count: int, rates: list[float], seed: int
) -> list[tuple[float, bool]]:
    """Predict, then learn, on tokens whose acceptance depends on the first feature."""
    random = np.random.default_rng(seed)
    journal: list[tuple[str, float, bool]] = []
    confidence.journal = journal
    for _ in range(count):
        bucket = int(random.integers(len(rates)))
        feature = (bucket, int(random.integers(5)))
        accepted = bool(random.random() < rates[bucket])
        token = int(random.integers(50))
        confidence.learn("s", scope, 7, [token], [feature], int(accepted), not accepted)
    return [(p, held) for _, p, held in journal]


def calibration_error(predictions: list[tuple[float, bool]]) -> float:
    ordered = sorted(predictions)
    bins = np.array_split(np.array(ordered, float), 15)
    return sum(abs(b[:, 0].mean() - b[:, 1].mean()) * len(b) for b in bins) / len(ordered)


def log_loss(predictions: list[tuple[float, bool]]) -> float:
    return -sum(math.log(p if held else 1 - p) for p, held in predictions) / len(predictions)


def test_is_calibrated_on_what_it_has_not_seen() -> None:
    confidence = Confidence()
    scope = confidence.scope("r", "python")
    rates = [0.05, 0.3, 0.6, 0.9, 0.98]
    predictions = stream_predictions(confidence, scope, 6000, rates, seed=1)[1000:]
    assert calibration_error(predictions) < 0.05
    mean = sum(held for _, held in predictions) / len(predictions)
    entropy = -mean * math.log(mean) - (1 - mean) * math.log(1 - mean)
    assert log_loss(predictions) < 0.9 * entropy


def test_a_new_repository_starts_from_its_language() -> None:
    confidence = Confidence()
    good = confidence.scope("known", "python")
    stream_predictions(confidence, good, 500, [0.9], seed=4)
    poor = confidence.scope("other", "rust")
    stream_predictions(confidence, poor, 500, [0.1], seed=5)
    python = confidence.predict("s", confidence.scope("new", "python"), 7, [5], [(0, 0)])[0]
    rust = confidence.predict("s", confidence.scope("new", "rust"), 7, [5], [(0, 0)])[0]
    assert python > rust + 0.2


def test_predictions_end_where_reach_falls_below_the_least() -> None:
    confidence = Confidence()
    scope = confidence.scope(None, None)
    probabilities = confidence.predict("s", scope, 1, [1] * 20, [(0,)] * 20, least=0.1)
    assert len(probabilities) == 4  # 0.5 ** 4 < 0.1


def drafting(folder: Path | None = None, fingerprint: str = "tokenizer") -> Drafting:
    return Drafting(
        vocab_size=1000,
        fingerprint=fingerprint,
        costs=FlatCosts(),
        folder=folder,
        index_bytes=1 << 20,
    )


def work(subject: Drafting, number: int = 1, *, learn: bool = True) -> list[float]:
    """Decode a text that repeats itself; what is proposed for its beginning."""
    text = [10, 11, 12, 13, 14, 15, 16, 17] * 12
    stream = StreamView(number, list(text[:20]), 20, "r", "python", learn=learn)
    subject.controller.begin(stream)
    first: list[float] = []
    while len(stream.tokens) < len(text):
        plan = subject.controller.plan([stream], 15)
        if not first:
            first = plan.record.explain(number)["chosen"]["confidence"]
        draft = plan.drafts[0]
        at = len(stream.tokens)
        accepted = 0
        while accepted < len(draft.tokens) and draft.tokens[accepted] == text[at + accepted]:
            accepted += 1
            if at + accepted >= len(text) - 1:
                break
        new = text[at : at + accepted + 1]
        stream.tokens.extend(new)
        subject.controller.settle(stream, draft, accepted, new, None, 10.0)
    subject.controller.end(stream)
    return first


def test_a_restarted_engine_is_as_confident_as_before(tmp_path: Path) -> None:
    before = drafting(tmp_path)
    before.add_segment("f", "r", "file", np.array([10, 11, 12, 13, 14, 15, 16, 17] * 3, np.int32))
    for number in range(4):
        work(before, number)
    saved = before.learned()
    before.save()
    after = drafting(tmp_path)
    for kind, repository, payload in saved:
        after.restore(kind, repository, payload)
    assert {repository for _, repository, _ in saved} == {None, "r"}
    warm, cold = work(after, 9), work(drafting(), 9)
    assert warm[0] > cold[0] + 0.02
    assert warm[0] == pytest.approx(work(before, 9)[0], abs=0.02)


def test_state_of_another_tokenizer_or_damaged_state_is_ignored() -> None:
    before = drafting()
    work(before)
    other = drafting(fingerprint="other")
    for kind, repository, payload in before.learned():
        other.restore(kind, repository, payload)
        other.restore(kind, repository, payload[: len(payload) // 2])
        other.restore(kind, repository, b"")
    assert work(other, 3) == work(drafting(), 3)


def test_forgetting_a_repository_leaves_nothing_of_it() -> None:
    subject = drafting()
    subject.add_segment("f", "r", "file", np.arange(100, 300, dtype=np.int32))
    work(subject)
    subject.drop_repository("r")
    stream = StreamView(5, list(range(100, 120)), 20, "s", "python")
    subject.controller.begin(stream)
    assert subject.controller.plan([stream], 15).drafts[0].tokens == []
    subject.drop_repository(None)
    assert work(subject, 7) == work(drafting(), 7)


def test_nothing_is_learned_from_a_stream_that_is_not_trusted() -> None:
    subject = drafting()
    before = subject.learned()
    work(subject, learn=False)
    work(subject, 2, learn=False)
    assert [payload for _, repository, payload in subject.learned() if repository is None] == [
        payload for _, repository, payload in before
    ]
    assert list(subject.index) == []
    assert (subject.recycle.single.latest == -1).all()


def test_a_low_estimate_recovers_when_proposals_hold_again() -> None:
    """Long unlucky, then always right: back above a half within twenty outcomes, as the stream's
    own offset and the adaptive half-life forget what no longer holds."""
    confidence = Confidence()
    scope = confidence.scope("r", "python")
    features = [(3, 1)]
    for _ in range(500):
        confidence.learn("text", scope, 1, [2], features, 0, True)
    low = confidence.predict("text", scope, 1, [2], features)[0]
    outcomes = 0
    while confidence.predict("text", scope, 1, [2], features)[0] < 0.5:
        confidence.learn("text", scope, 1, [2], features, 1, False)
        outcomes += 1
        assert outcomes <= 20
    assert low < 0.05
