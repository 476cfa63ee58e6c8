"""The native planner plans, learns and explains what the controller does in Python."""

from __future__ import annotations

import json

import numpy as np
import pytest
from atlasd_kernels.cpu.plan import plan_library
from atlasd_kernels.cpu.text import text_library
from hypothesis import given, settings
from hypothesis import strategies as st

from atlasd.draft.confidence import Confidence
from atlasd.draft.controller import Controller
from atlasd.draft.cut import NO_OTHERS, Others
from atlasd.draft.drafter import EMPTY, Draft, FirstChoices, StreamView, VerifiedRows
from atlasd.draft.native import NativeMixture
from atlasd.draft.neural import Neural
from atlasd.draft.packed import PackedStep
from atlasd.draft.positions_index import PositionIndex
from atlasd.draft.recycle import Recycle
from tests.unit.test_draft_neural import Sums, expected

pytestmark = pytest.mark.skipif(plan_library() is None, reason="the native library was not built")

TOKENS = st.integers(2, 40).flatmap(lambda top: st.lists(st.integers(1, top), max_size=160))


class Table:
    """Step costs that rise with the rows."""

    def __init__(self, row: float) -> None:
        self.row = row

    def ms(self, rows: int, kv_tokens: int) -> float:
        return 1.0 + self.row * rows + kv_tokens / 1e5

    def bucket(self, rows: int) -> int:
        return rows


class Clock:
    """Every look takes so long."""

    def __init__(self, step: float) -> None:
        self.time, self.step = 0.0, step

    def __call__(self) -> float:
        self.time += self.step
        return self.time


class Subject:
    """A controller over the native text drafter and a static one."""

    def __init__(self, native: bool, row: float, ask: float, budget: int = 1 << 20) -> None:
        library = text_library()
        assert library is not None
        self.text = NativeMixture(PositionIndex(budget), Recycle(100), library)
        self.neural = Neural(Sums(), now=Clock(ask))
        self.confidence = Confidence()
        drafters = [self.text, self.neural]
        self.controller = Controller(drafters, self.confidence, Table(row), native=native)
        self.views: dict[int, StreamView] = {}

    def begin(self, number: int, prompt: list[int], learn: bool) -> None:
        view = StreamView(number, list(prompt), len(prompt), "r", "python", learn=learn)
        self.views[number] = view
        self.controller.begin(view)

    def step(
        self,
        texts: dict[int, list[int]],
        room: int,
        limits: list[int] | None,
        others: Others = NO_OTHERS,
    ) -> tuple[list[Draft], list[dict[str, object]]]:
        """One step of all streams towards their texts; the drafts and what is told of them."""
        views = [self.views[number] for number in texts]
        plan = self.controller.plan(views, room, limits, others)
        told = [plan.record.explain(view.stream) for view in views]
        for one in told:
            del one["drafting_ms"]
        for at, (view, draft, text) in enumerate(
            zip(views, plan.drafts, texts.values(), strict=True)
        ):
            assert 0.0 <= plan.record.foreseen(at, len(draft.tokens)) <= len(draft.tokens)
            done = len(view.tokens) - view.prompt_length
            right = 0
            while right < len(draft.tokens) and draft.tokens[right] == text[done + right]:
                right += 1
            new = text[done : done + right + 1]
            fed = [view.tokens[-1], *draft.tokens]
            best = [*new, *[(3 * token + 1) % 90 for token in fed[len(new) :]]]
            view.tokens.extend(new)
            rows = FirstChoices(fed, best) if draft.tokens else None
            self.controller.settle(view, draft, right, new, rows, 1.0)
        return plan.drafts, told

    def learned(self) -> dict[str, object]:
        """All that outlives a stream."""
        state = self.text.state()
        recycle = self.text.recycle
        return {
            "masses": self.text.masses_state(),
            "weights": state.weights.tolist(),
            "offsets": state.offsets,
            "recycle": [
                hash(array.tobytes())
                for table in (recycle.single, recycle.pair)
                for array in (table.latest, table.usual, table.count)
            ],
            "credit": sorted((s.name, s.credit, s.length) for s in self.text.positions.index),
            "tallies": self.controller.tallies,
            "worth": (self.neural.worth.brought, self.neural.worth.ask_ms),
            "neural": {n: s.weights.tolist() for n, s in self.confidence.states().items()},
        }


@settings(max_examples=5, deadline=None)
@given(
    st.lists(TOKENS, min_size=1, max_size=3),
    st.lists(TOKENS.filter(bool), min_size=2, max_size=3),
    TOKENS,
    st.sampled_from([0.0, 0.02, 0.3]),
    st.sampled_from([1e-5, 1e-3]),
    st.booleans(),
)
def test_drafts_records_and_what_is_learned_are_the_same(
    files: list[list[int]],
    prompts: list[list[int]],
    output: list[int],
    row: float,
    ask: float,
    learn: bool,
) -> None:
    subjects = [Subject(native, row, ask) for native in (True, False)]
    assert subjects[0].controller.natively
    assert not subjects[1].controller.natively
    text = [*output, *files[0], *output, *(sum(output[-3:]) % 40 + 1 for _ in range(8))]
    for number, tokens in enumerate(files):
        for subject in subjects:
            subject.text.positions.index.put(str(number), "r", "file", np.array(tokens, np.int32))
    for request in range(2):
        texts = {9 * request + at: text[at:] + [7] * 260 for at in range(len(prompts))}
        for number, prompt in zip(texts, prompts, strict=True):
            for subject in subjects:
                subject.begin(number, prompt, learn or number % 2 == 0)
        for step in range(12):
            limits = None if step % 3 else [step + at for at in range(len(texts))]
            beside = Others(step % 4, 30 * (step % 4))
            (drafts, told), (others, wanted) = (
                subject.step(texts, 20, limits, beside) for subject in subjects
            )
            assert [d.tokens for d in drafts] == [d.tokens for d in others]
            for one, other in zip(drafts, others, strict=True):
                count = len(one.tokens)
                assert one.by_source(count) == other.by_source(count)
            assert told == wanted
        for subject in subjects:
            for view in subject.views.values():
                subject.controller.end(view)
            subject.views.clear()
        one, other = (subject.learned() for subject in subjects)
        for name, value in one.items():
            assert value == other[name], name


def test_the_static_drafter_is_asked_where_it_pays_and_its_tokens_are_used() -> None:
    subject = Subject(native=True, row=0.0, ask=1e-6)
    # What comes is what the static drafter says, and no text has it.
    text = expected([1, 2], 0, 60)
    subject.begin(1, [1, 2], learn=True)
    sources: dict[str, int] = {}
    while len(subject.views[1].tokens) < 40:
        drafts, _ = subject.step({1: text}, 12, None)
        for name, count in drafts[0].by_source(99).items():
            sources[name] = sources.get(name, 0) + count
    assert sources["neural"] > 5
    assert subject.controller.tallies["neural"].accepted > 5


def test_a_record_is_unpacked_as_it_was_planned() -> None:
    subject = Subject(native=True, row=0.0, ask=1.0)
    subject.begin(1, [5, 6, 7, 8, 9, 5, 6, 7], learn=True)
    plan = subject.controller.plan([subject.views[1]], 15)
    assert isinstance(plan.record, PackedStep)
    record = plan.record.unpack()
    assert record.chosen[0].tokens[: record.lookahead[0]] == plan.drafts[0].tokens
    assert record.foreseen(0, record.lookahead[0]) == pytest.approx(
        plan.record.foreseen(0, len(plan.drafts[0].tokens))
    )
    assert plan.drafts[0].tokens[:2] == [8, 9]


def test_a_stream_with_a_constraint_is_planned_in_python() -> None:
    class Anything:
        finished = False

        def valid(self, tokens: list[int]) -> int:
            return len(tokens)

    subject = Subject(native=True, row=0.0, ask=1.0)
    subject.begin(1, [5, 6, 7, 8, 9, 5, 6, 7], learn=True)
    subject.views[1].constraint = Anything()  # type: ignore[assignment]
    plan = subject.controller.plan([subject.views[1]], 15)
    assert not isinstance(plan.record, PackedStep)
    assert plan.drafts[0].tokens[:2] == [8, 9]


def test_a_drafter_the_native_side_does_not_know_is_asked() -> None:
    class Other:
        name, free = "other", True

        def begin(self, stream: StreamView) -> None: ...

        def propose(self, stream: StreamView, after: list[int], limit: int) -> Draft:
            return Draft(self.name, [3], probabilities=[0.9]) if not after else EMPTY

        def observe(
            self, stream: StreamView, tokens: list[int], rows: VerifiedRows | None
        ) -> None: ...

        def settle(self, draft: Draft, accepted: int) -> None: ...

        def end(self, stream: StreamView) -> None: ...

    subject = Subject(native=True, row=0.0, ask=1.0)
    subject.controller.add(Other())
    assert not subject.controller.natively
    subject.begin(1, [5, 6], learn=True)
    told = subject.controller.plan([subject.views[1]], 15).record.explain(1)
    assert "other" in json.dumps(told["candidates"])


def test_first_choices_are_arrays_for_who_wants_them() -> None:
    rows = FirstChoices([1, 2, 3], [2, 3, 9])
    assert rows.after.tolist() == [1, 2, 3]
    assert rows.top.tolist() == [[2], [3], [9]]
    assert rows.top_logprobs.shape == (3, 0)
