"""The controller's rule against exhaustive search, mixing of sources, and its explanations."""

from __future__ import annotations

import itertools
import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlasd.draft.confidence import Confidence
from atlasd.draft.controller import Controller
from atlasd.draft.cut import cut
from atlasd.draft.drafter import EMPTY, Draft, StreamView, VerifiedRows


class Table:
    """Step costs by row count."""

    def __init__(self, milliseconds: list[float]) -> None:
        self.milliseconds = milliseconds

    def ms(self, rows: int, kv_tokens: int) -> float:
        return self.milliseconds[min(rows, len(self.milliseconds)) - 1]

    def bucket(self, rows: int) -> int:
        return rows


FREE = Table([10.0] * 64)
STEEP = Table([10.0 * n for n in range(1, 65)])


class Script:
    """A drafter that says what it is told, whatever was before."""

    free = True

    def __init__(self, name: str, sayings: dict[tuple[int, ...], list[int]]) -> None:
        self.name = name
        self.sayings = sayings
        self.settled: list[tuple[list[int], int]] = []

    def begin(self, stream: StreamView) -> None:
        pass

    def propose(self, stream: StreamView, after: list[int], limit: int) -> Draft:
        tokens = self.sayings.get(tuple(after), [])[:limit]
        return Draft(self.name, tokens, [(0,)] * len(tokens)) if tokens else EMPTY

    def observe(self, stream: StreamView, tokens: list[int], rows: VerifiedRows | None) -> None:
        pass

    def settle(self, draft: Draft, accepted: int) -> None:
        self.settled.append((draft.tokens, accepted))

    def end(self, stream: StreamView) -> None:
        pass


def view(number: int = 1) -> StreamView:
    return StreamView(number, [1, 2, 3], 3, "r", "python")


reaches = st.lists(
    st.lists(st.floats(0.05, 1.0), max_size=5).map(
        lambda chain: list(itertools.accumulate(chain, lambda a, b: a * b))
    ),
    min_size=1,
    max_size=3,
)


@given(reaches, st.lists(st.floats(0.0, 8.0), min_size=16, max_size=16), st.integers(0, 7))
def test_the_cut_is_the_best_of_all_cuts(
    chains: list[list[float]], steps: list[float], others: int
) -> None:
    """The tokens of streams that take the step too, without a draft, are among those it brings."""
    milliseconds = list(itertools.accumulate(steps, initial=10.0))
    lookahead, compared = cut(chains, milliseconds, 16, others)

    def rate(counts: tuple[int, ...]) -> float:
        gained = sum(sum(chain[:n]) for chain, n in zip(chains, counts, strict=True))
        return (len(chains) + others + gained) / milliseconds[sum(counts)]

    best = max(map(rate, itertools.product(*(range(len(c) + 1) for c in chains))))
    assert rate(tuple(lookahead)) == pytest.approx(best)
    assert compared[0][0] == 0


@given(reaches)
def test_rows_that_cost_in_full_are_not_taken(chains: list[list[float]]) -> None:
    # Each row costs as much as a plain step: no draft can pay.
    milliseconds = [10.0 * (len(chains) + n) / len(chains) for n in range(17)]
    assert sum(cut(chains, milliseconds, 16)[0]) == 0


def test_what_never_holds_is_not_drafted_any_more() -> None:
    liar = Script("liar", {(): [9, 9, 9]})
    controller = Controller([liar], Confidence(), STEEP_AFTER_ONE)
    stream = view()
    controller.begin(stream)
    drafted = []
    for _ in range(200):
        draft = controller.plan([stream], 15).drafts[0]
        drafted.append(len(draft.tokens))
        stream.tokens.append(5)
        controller.settle(stream, draft, 0, [5], None, 10.0)
    assert sum(drafted[100:]) == 0


STEEP_AFTER_ONE = Table([10.0 + 1.0 * n for n in range(64)])


def test_unused_proposals_are_scored_and_come_into_use() -> None:
    one, two = Script("one", {(): [5, 6]}), Script("two", {(): [7, 8, 9]})
    controller = Controller([one, two], Confidence(), FREE)
    stream = view()
    controller.begin(stream)
    for _ in range(60):
        draft = controller.plan([stream], 15).drafts[0]
        accepted = 2 if draft.source == "one" else 0
        new = [5, 6, 1][: accepted + 1]
        stream.tokens.extend(new)
        controller.settle(stream, draft, accepted, new, None, 10.0)
    assert draft.source == "one"
    assert controller.tallies["two"].proposed > 30
    assert controller.tallies["two"].foreseen == 0
    assert controller.tallies["one"].accepted > controller.tallies["two"].accepted


def test_a_chain_that_ends_is_continued_by_another_drafter() -> None:
    one, two = Script("one", {(): [5, 6]}), Script("two", {(5, 6): [7, 8]})
    controller = Controller([one, two], Confidence(), FREE)
    stream = view()
    controller.begin(stream)
    draft = controller.plan([stream], 15).drafts[0]
    assert draft.tokens == [5, 6, 7, 8]
    assert draft.parts == (("one", 2), ("two", 2))
    assert draft.by_source(3) == {"one": 2, "two": 1}
    stream.tokens.extend([5, 6, 7, 1])
    controller.settle(stream, draft, 3, [5, 6, 7, 1], None, 10.0)
    assert one.settled == [([5, 6], 2)]
    assert two.settled == [([7, 8], 1)]


def test_streams_share_the_rows_by_confidence() -> None:
    class Even(Script):
        def propose(self, stream: StreamView, after: list[int], limit: int) -> Draft:
            tokens = [4] * min(limit, 6 - len(after))
            sure = 0.95 if stream.stream == 1 else 0.4
            probabilities = [sure] * len(tokens)
            return Draft(self.name, tokens, probabilities=probabilities) if tokens else EMPTY

    controller = Controller([Even("even", {})], Confidence(), FREE)
    streams = [view(1), view(2)]
    for stream in streams:
        controller.begin(stream)
    first, second = controller.plan(streams, 7).drafts
    assert len(first.tokens) == 6
    assert len(second.tokens) == 1


def test_room_and_limits_are_kept() -> None:
    controller = Controller([Script("s", {(): [5] * 40})], Confidence(), FREE)
    streams = [view(1), view(2)]
    for stream in streams:
        controller.begin(stream)
    drafts = controller.plan(streams, 7, [3, 9]).drafts
    assert len(drafts[0].tokens) <= 3
    assert sum(len(draft.tokens) for draft in drafts) <= 7
    assert [d.tokens for d in controller.plan(streams, 0).drafts] == [[], []]


@pytest.mark.parametrize("costs", [FREE, STEEP])
def test_a_step_explains_itself_as_json(costs: Table) -> None:
    controller = Controller([Script("s", {(): [5, 6, 7]})], Confidence(), costs)
    stream = view()
    controller.begin(stream)
    told = controller.plan([stream], 15).record.explain(1)
    json.dumps(told)
    assert told["candidates"][0]["source"] == "s"
    assert told["costs"][0]["rows"] == 0
    assert told["lookahead"] == (3 if costs is FREE else 0)
    assert ("plain" in str(told["reason"])) == (costs is STEEP)


def test_a_drafter_without_proposals_gives_plain_steps() -> None:
    controller = Controller([Script("s", {})], Confidence(), FREE)
    stream = view()
    controller.begin(stream)
    plan = controller.plan([stream], 15)
    assert plan.drafts == [EMPTY]
    assert plan.record.explain(1)["reason"] == "no drafter had a proposal"
    controller.settle(stream, plan.drafts[0], 0, [3], None, 10.0)
    controller.end(stream)


def test_rejected_rows_are_recycled() -> None:
    from atlasd.draft.recycle import Recycle

    recycle = Recycle(100)
    stream = StreamView(1, [1, 2, 3, 4], 3, None, None)
    rows = VerifiedRows(
        np.array([3, 50], np.int32), np.array([[4, 9], [60, 61]], np.int32), np.zeros((2, 2), "f")
    )
    recycle.observe(stream, [4], rows)
    assert 60 in [token for token, _ in recycle.votes(0, 50)]
    assert recycle.votes(2, 3)[0][0] == 4


def test_the_recycle_table_is_small_at_a_large_vocabulary() -> None:
    from atlasd.draft.recycle import Recycle

    assert Recycle(152_000).nbytes <= 16 << 20
