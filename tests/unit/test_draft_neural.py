"""The neural drafter: its cache follows the stream, its chains are the model's own continuation."""

from __future__ import annotations

import numpy as np
from atlasd_kernels.noise import gumbel_row
from hypothesis import given, settings
from hypothesis import strategies as st

from atlasd.draft.confidence import Confidence
from atlasd.draft.controller import Controller
from atlasd.draft.drafter import StreamView
from atlasd.draft.lookahead import Chain, Lookahead, Noise
from atlasd.draft.neural import Neural, choose


class Sums:
    """A model whose next token is a sum over everything its slot holds: any error in what the
    slot holds shows in the chain."""

    slot_tokens = 64
    carries = False

    def __init__(self, slots: int = 2) -> None:
        self.slots = slots
        self.held: list[dict[int, int]] = [{} for _ in range(slots)]
        self.read_tokens = 0

    def read(self, tokens: np.ndarray, slot: int, position: int) -> None:
        self.read_tokens += len(tokens)
        for at, token in enumerate(tokens.tolist()):
            self.held[slot][position + at] = token

    def chain(self, ask: Lookahead) -> Chain:
        slot, position = ask.slot, ask.position + len(ask.tokens) - 1
        assert position + ask.limit <= self.slot_tokens
        self.read_tokens += len(ask.tokens) - 1
        for at, token in enumerate(ask.tokens):
            self.held[slot][ask.position + at] = token
        tokens: list[int] = []
        last = ask.tokens[-1]
        for at in range(ask.limit):
            self.held[slot][position + at] = last
            last = following([self.held[slot][p] for p in range(position + at + 1)])
            tokens.append(last)
        return tokens, [0.9] * ask.limit

    def memory_bytes(self) -> dict[str, int]:
        return {"slots": 1}


def following(tokens: list[int]) -> int:
    return (sum((at + 1) * token for at, token in enumerate(tokens)) + 17) % 97


def expected(text: list[int], offset: int, count: int) -> list[int]:
    text = list(text)
    begin = len(text)
    while len(text) < begin + count:
        text.append(following(text[offset:]))
    return text[begin:]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.integers(0, 90), min_size=1, max_size=40),
    st.lists(
        st.tuples(
            st.integers(1, 3),
            st.integers(0, 8),
            st.lists(st.integers(0, 90), max_size=4),
            st.lists(st.integers(0, 90), min_size=1, max_size=9),
        ),
        max_size=20,
    ),
)
def test_drafts_are_what_the_model_says_after_the_verified_text(
    prompt: list[int], steps: list[tuple[int, int, list[int], list[int]]]
) -> None:
    drafter = Neural(Sums())
    streams = {n: StreamView(n, list(prompt), len(prompt), None, None) for n in (1, 2, 3)}
    for stream in streams.values():
        drafter.begin(stream)
    for number, agree, after, new in steps:
        stream = streams[number]
        draft = drafter.propose(stream, after, 6)
        state = drafter._streams[number]
        assert draft.tokens == expected(stream.tokens + after, state.offset, 6)
        assert len(draft.features) == 6
        # Some of the draft may be accepted, then something else comes.
        stream.tokens.extend([*after, *draft.tokens[:agree], *new][: 3 + agree])
    for stream in streams.values():
        drafter.end(stream)


def test_accepted_tokens_are_not_read_again() -> None:
    model = Sums()
    drafter = Neural(model)
    stream = StreamView(1, [1, 2, 3, 4], 4, None, None)
    drafter.begin(stream)
    draft = drafter.propose(stream, [], 5)
    assert model.read_tokens == 3
    stream.tokens.extend([*draft.tokens[:3], 50])
    drafter.propose(stream, [], 5)
    assert model.read_tokens == 3


def test_asks_nothing_where_its_time_is_worth_more() -> None:
    drafter = Neural(Sums())
    stream = StreamView(1, [1, 2, 3], 3, None, None)
    drafter.begin(stream)
    drafter.token_ms = 0.1
    assert drafter.gain(stream, 1.0, tokens_per_ms=0.5) > 0.2
    assert drafter.gain(stream, 0.02, tokens_per_ms=0.5) < 0
    assert drafter.gain(stream, 1.0, tokens_per_ms=9.0) < 0


def test_an_ask_takes_all_that_is_done_from_its_beginning_until_its_chain_is_known() -> None:
    clock = [0.0]

    class Timed(Sums):
        def chain(self, ask: Lookahead) -> tuple[list[int], list[float]]:
            clock[0] += 0.0002
            return super().chain(ask)

    drafter = Neural(Timed(), now=lambda: clock[0])
    drafter.read_ms, drafter.worth.ask_ms = 0.0, 0.5
    stream = StreamView(1, [1, 2, 3], 3, None, None)
    drafter.begin(stream)
    for number in range(200):
        draft = drafter.propose(stream, [], 4)
        clock[0] += 0.0003  # what its confidence takes
        drafter.foretold(stream, [0.5] * len(draft.tokens))
        stream.tokens.append(number % 7)
    assert 0.45 < drafter.worth.ask_ms < 0.55
    assert drafter.asking.of(4) < 0.3


def test_samples_with_the_noise_of_the_target() -> None:
    logits = np.random.default_rng(1).normal(0, 3, 512).astype(np.float32)
    noise = Noise(0.8, 1234, 1, 10)
    wanted = int((logits / np.float32(0.8) + gumbel_row(1234, 1, 12, 512)).argmax())
    assert choose(logits, noise, 2) == wanted
    assert choose(logits, Noise(0.0, 0, 0, 0), 2) == int(logits.argmax())


class Costs:
    def ms(self, rows: int, kv_tokens: int) -> float:
        return 10.0 + 0.5 * rows

    def bucket(self, rows: int) -> int:
        return rows


def test_the_controller_learns_to_trust_a_good_model_and_drops_a_bad_one() -> None:
    for agrees in (True, False):
        drafter = Neural(Sums())
        drafter.token_ms = 0.01
        controller = Controller([drafter], Confidence(), Costs())
        stream = StreamView(1, [1, 2, 3], 3, "r", "python")
        controller.begin(stream)
        drafted: list[int] = []
        for _ in range(150):
            draft = controller.plan([stream], 15).drafts[0]
            drafted.append(len(draft.tokens))
            accepted = len(draft.tokens) if agrees else 0
            new = [*draft.tokens[:accepted], 95]
            stream.tokens.extend(new)
            controller.settle(stream, draft, accepted, new, None, 10.0)
        late = sum(drafted[50:]) / 100
        assert late > 4 if agrees else late < 0.5
        controller.end(stream)
