"""Identity: drafting, neighbours and warm caches change no token and no bit of a row's logits.

An oracle drafter proposes the true continuation, corrupted at random, so that a large share of
the tokens comes from drafts and rejections happen at every depth. Streams run alone and beside
seven others, cold and over warm caches of every alignment, greedy and sampled, on every decoder
that serves here, in fp32 and bf16.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator

import numpy as np
import pytest
from atlasd_kernels import cpu

from atlasd.draft.registry import Drafting
from atlasd.engine.costs import StepCosts
from atlasd.engine.inprocess import Output, Outputs, request
from atlasd.engine.native import fastest_choose
from atlasd.engine.planning import Planning
from atlasd.engine.protocol import Priority, Sampling
from atlasd.engine.steps import Engine
from atlasd.models.decoder import Decoder, Float32, Int32
from atlasd.models.load import LoadOptions, load_decoder
from atlasd.models.locate import find_model
from tests.engine.oracle import OracleController
from tests.engine.tiny import VOCAB, tiny_checkpoint

NEW = 48
NATIVE, WHY_NOT = cpu.available()

SAMPLINGS = (
    Sampling(),
    Sampling(temperature=0.9, seed=7),
    Sampling(temperature=1.0, seed=8, top_p=0.9, top_k=60, min_p=0.01),
    Sampling(temperature=0.6, seed=9, repetition_penalty=1.2, frequency_penalty=0.3),
    Sampling(repetition_penalty=1.1, presence_penalty=0.5, logit_bias={3: 2.0}),
)


class WatchedDecoder:
    """Passes calls on and notes the bits of every row's logits, by what the row may depend on:
    the tokens of its slot up to its position."""

    def __init__(self, inner: Decoder) -> None:
        self.inner = inner
        self.rows: dict[tuple[int, ...], bytes] = {}
        self.differing = 0
        self.again = 0
        self._held: list[list[int]] = [[] for _ in range(inner.slots)]

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    def forward(
        self, tokens: Int32, slots: Int32, positions: Int32, wanted: Int32, *, prefill: bool = False
    ) -> Float32:
        logits = self.inner.forward(tokens, slots, positions, wanted, prefill=prefill)
        places = {row: at for at, row in enumerate(wanted.tolist())}
        for row, (token, slot, position) in enumerate(
            zip(tokens.tolist(), slots.tolist(), positions.tolist(), strict=True)
        ):
            held = self._held[slot]
            del held[position:]
            held.append(token)
            if row in places:
                self._note(tuple(held), logits[places[row]].tobytes())
        return logits

    def copy_prefix(self, source: int, target: int, length: int) -> None:
        self.inner.copy_prefix(source, target, length)
        self._held[target][:] = self._held[source][:length]

    def _note(self, held: tuple[int, ...], bits: bytes) -> None:
        before = self.rows.setdefault(held, bits)
        if before is not bits:
            self.again += 1
            self.differing += before != bits


@pytest.fixture(
    scope="module",
    params=[(backend, weights) for backend in ("native", "torch") for weights in ("fp32", "bf16")],
    ids=lambda param: "-".join(param),
)
def decoder(request, tmp_path_factory) -> Iterator[Decoder]:
    backend, weights = request.param
    if backend == "native" and not NATIVE:
        pytest.skip(f"the CPU kernels do not load here: {WHY_NOT}")
    folder = tiny_checkpoint(tmp_path_factory.mktemp("model") / "tiny")
    options = LoadOptions(
        weight_format=weights, backend=backend, device="cpu", slots=10, slot_tokens=320, threads=1
    )
    loaded = load_decoder(find_model(str(folder)), options)
    yield loaded.decoder
    loaded.decoder.close()


def serve(
    engine: Engine, outputs: Outputs, prompt: list[int], sampling: Sampling, number: int
) -> Output:
    submit = request(number, prompt, max_tokens=NEW, sampling=sampling)
    engine.submit(submit)
    while not outputs.get(number, Output()).reason:
        engine.step()
    assert outputs[number].reason == "length", outputs[number].message
    return outputs[number]


def prompt_of(seed: int, length: int) -> list[int]:
    return np.random.default_rng(seed).integers(0, VOCAB, length).tolist()


class Bench:
    """Runs streams with and without drafting over one watched decoder."""

    def __init__(self, decoder: Decoder) -> None:
        self.watched = WatchedDecoder(decoder)
        self.rejected_at: Counter[int] = Counter()
        self.accepted = 0
        self.tokens = 0

    def engine(self, planning: Planning | None = None) -> tuple[Engine, Outputs]:
        outputs = Outputs()
        engine = Engine(self.watched, outputs.take, planning=planning, choose=fastest_choose())
        return engine, outputs

    def plain(self, prompt: list[int], sampling: Sampling) -> list[int]:
        engine, outputs = self.engine()
        return serve(engine, outputs, prompt, sampling, 0).tokens

    def count(self, oracle: OracleController, outputs: list[Output]) -> None:
        self.rejected_at += oracle.rejected_at
        self.accepted += sum(sum(output.stats.accepted.values()) for output in outputs)
        self.tokens += sum(len(output.tokens) for output in outputs)

    def check(self) -> None:
        """The bits agreed, and there was something to agree on."""
        assert self.watched.again > self.tokens / 2
        assert self.watched.differing == 0
        assert self.accepted >= 0.3 * self.tokens


def alone(bench: Bench, rounds: int) -> None:
    for seed in range(rounds):
        prompt, sampling = prompt_of(seed, 20 + 17 * seed), SAMPLINGS[seed % len(SAMPLINGS)]
        truth = bench.plain(prompt, sampling)
        oracle = OracleController({1: truth}, VOCAB, seed)
        engine, outputs = bench.engine(Planning(oracle))
        output = serve(engine, outputs, prompt, sampling, 1)
        assert output.tokens == truth
        engine.check_integrity()
        bench.count(oracle, [output])


def beside_seven_others(bench: Bench, rounds: int) -> None:
    for seed in range(rounds):
        draw = random.Random(seed)
        prompts = [prompt_of(100 * seed + i, draw.randrange(1, 200)) for i in range(8)]
        samplings = [SAMPLINGS[(seed + i) % len(SAMPLINGS)] for i in range(8)]
        truth = dict(enumerate(map(bench.plain, prompts, samplings)))
        oracle = OracleController(truth, VOCAB, seed)
        engine, outputs = bench.engine(Planning(oracle))
        for number, prompt in enumerate(prompts):
            submit = request(number, prompt, max_tokens=NEW, sampling=samplings[number])
            submit.priority = Priority(draw.randrange(2))
            engine.submit(submit)
            for _ in range(draw.randrange(4)):
                engine.step()
        while engine.step():
            pass
        engine.check_integrity()
        assert {number: output.tokens for number, output in outputs.items()} == truth
        bench.count(oracle, list(outputs.values()))


def over_warm_caches(bench: Bench, rounds: int) -> None:
    prompt, sampling = prompt_of(1, 130), SAMPLINGS[1]
    truth = bench.plain(prompt, sampling)
    draw = random.Random(0)
    cuts = draw.sample(range(1, 130), rounds)
    for number, cut in enumerate(cuts):
        oracle = OracleController({1: truth}, VOCAB, number)
        engine, outputs = bench.engine(Planning(oracle))
        # Something else that begins alike was served, and decoded past the cut, before.
        before = serve(engine, outputs, prompt[:cut], SAMPLINGS[number % 3], 0)
        for said, token in zip(before.tokens, prompt[cut:], strict=False):
            if said != token:
                break
            cut += 1  # by chance it said what comes next here
        output = serve(engine, outputs, prompt, sampling, 1)
        assert output.tokens == truth
        chunk = bench.watched.inner.prefill_chunk
        assert output.stats.cached_tokens == min(cut, 129) // chunk * chunk
        bench.count(oracle, [output])


ROUNDS = {alone: 10, beside_seven_others: 3, over_warm_caches: 12}
FEW_ROUNDS = {alone: 5, beside_seven_others: 1, over_warm_caches: 3}


@pytest.mark.parametrize("scene", [alone, beside_seven_others, over_warm_caches])
def test_drafting_changes_no_token_and_no_bit(decoder, scene: Callable[[Bench, int], None]):
    bench = Bench(decoder)
    # Torch takes ten times as long; the slow tests below give it as many streams.
    scene(bench, (ROUNDS if decoder.prefill_chunk == 1 else FEW_ROUNDS)[scene])
    bench.check()


def test_rejections_happen_at_every_depth_and_change_nothing(decoder):
    bench = Bench(decoder)
    prompt = prompt_of(3, 64)
    truth = bench.plain(prompt, SAMPLINGS[1])
    seed = 0
    while set(bench.rejected_at) != set(range(1, 16)) and seed < 60:
        oracle = OracleController({1: truth}, VOCAB, seed, right=0.0)
        engine, outputs = bench.engine(Planning(oracle))
        output = serve(engine, outputs, prompt, SAMPLINGS[1], 1)
        assert output.tokens == truth
        bench.count(oracle, [output])
        seed += 1
    assert set(bench.rejected_at) == set(range(1, 16))
    assert bench.watched.differing == 0


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("scene", [alone, beside_seven_others])
def test_drafting_changes_nothing_over_many_streams(decoder, scene):
    bench = Bench(decoder)
    scene(bench, {alone: 17, beside_seven_others: 30}[scene])
    bench.check()


@pytest.mark.slow
@pytest.mark.timeout(3600)
def test_every_alignment_of_a_warm_cache_changes_nothing(decoder):
    bench = Bench(decoder)
    over_warm_caches(bench, 129)
    bench.check()


def test_the_installed_drafters_change_nothing_either(decoder):
    bench = Bench(decoder)
    costs = StepCosts(decoder.bucket)
    costs.measure(1, 0, 1.0)
    costs.measure(64, 0, 1.2)
    drafting = Drafting(vocab_size=VOCAB, fingerprint="", costs=costs)
    prompts = [prompt_of(seed, 30 + seed) * 2 for seed in range(6)]
    truth = [bench.plain(p, SAMPLINGS[i % 3]) for i, p in enumerate(prompts)]
    for i in range(0, 6, 2):
        text = np.array(prompts[i] + truth[i], np.int32)
        drafting.add_segment(f"{i}.py", "/repository", "file", text, "python")
    engine, outputs = bench.engine(Planning(drafting.controller))
    for _ in range(2):
        for number, prompt in enumerate(prompts):
            submit = request(number, prompt, max_tokens=NEW, sampling=SAMPLINGS[number % 3])
            submit.repository, submit.language = "/repository", "python"
            engine.submit(submit)
        while engine.step():
            pass
        assert [outputs[number].tokens for number in range(6)] == truth
        bench.accepted += sum(sum(output.stats.accepted.values()) for output in outputs.values())
        outputs.clear()
    assert bench.accepted > NEW
    assert bench.watched.differing == 0
