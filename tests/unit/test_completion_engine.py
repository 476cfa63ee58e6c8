"""The completer with the real engine process: what typing costs, and that nothing stays behind."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import pytest_asyncio

from atlasd.completion.completer import Completer
from atlasd.completion.flights import Superseded
from atlasd.completion.request import CompletionRequest
from atlasd.engine.client import EngineClient
from atlasd.engine.protocol import Load, Sampling
from atlasd.models.locate import find_model
from atlasd.models.tokenizer import Tokenizer
from tests.e2e.tiny_model import write_tiny_model

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

BEFORE = "import os\n\n\n" + "".join(f"size_{n} = os.stat(path_{n}).st_size\n" for n in range(18))
AFTER = "\n" + "".join(f"print(size_{n})\n" for n in range(12))
REQUEST = CompletionRequest(
    *(BEFORE + "total = ", AFTER),
    path="/src/sizes.py",
    document="sizes",
    max_tokens=24,
    invoked=True,
    trusted=True,
)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tiny_model(tmp_path_factory.mktemp("model"))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def engine(model: Path) -> AsyncIterator[EngineClient]:
    engine = EngineClient(Load(model=str(model), threads=1, slot_tokens=1024))
    await engine.start()
    await asyncio.wait_for(engine.wait_ready(), 60)
    yield engine
    await engine.stop()


@pytest.fixture
def completer(engine: EngineClient, model: Path) -> Iterator[Callable[..., Completer]]:
    """Makes completers of the model, with the orders it is to declare."""
    made = []

    def make(*orders: str) -> Completer:
        files = find_model(str(model))
        config = {"atlasd": {"fim_orders": orders}}
        tokenizer = Tokenizer.load(files)
        made.append(
            Completer(engine, tokenizer, None, None, "tiny", config=config, slot_tokens=1024)
        )
        return made[-1]

    yield make
    for each in made:
        each.clear()


@pytest.mark.parametrize("order", ["spm", "psm"])
async def test_one_more_character_costs_a_chunk_and_the_suffix_behind_it(
    completer: Callable[..., Completer], order: str
) -> None:
    asked = completer(order)
    raw = replace(REQUEST, trim=False)
    first = await asked.complete(raw)
    assert first is not None
    assert first.stats.prompt_tokens > 700
    for typed in ("s", "si", "siz"):
        done = await asked.complete(replace(raw, prefix=raw.prefix + typed))
        assert done is not None
        behind = len(AFTER) if order == "psm" else 0
        assert done.stats.prefilled_tokens <= behind + 64 + 16


async def test_requests_that_overtake_each_other_leave_no_stream_behind(
    engine: EngineClient, completer: Callable[..., Completer]
) -> None:
    asked = completer("spm")
    typing = [
        asyncio.create_task(
            asked.complete(replace(REQUEST, prefix=BEFORE + "x" * count, max_tokens=200))
        )
        for count in range(1, 9)
    ]
    answers = await asyncio.gather(*typing, return_exceptions=True)
    assert all(isinstance(each, Superseded) for each in answers[:-1])
    assert not isinstance(answers[-1], BaseException)
    for _ in range(100):
        status = await engine.status()
        assert status is not None
        if status.streams == 0 and engine.active == 0:
            break
        await asyncio.sleep(0.02)
    assert (status.streams, engine.active) == (0, 0)


async def test_a_follow_up_decoded_ahead_costs_nothing_when_it_is_asked_for(
    engine: EngineClient, completer: Callable[..., Completer]
) -> None:
    asked = completer("spm")
    varied = replace(REQUEST, invoked=False, sampling=Sampling(temperature=1.0, seed=5))
    first = await asked.complete(varied)
    assert first is not None
    for _ in range(200):
        await asyncio.sleep(0.02)
        if asked.stats["remembered"] == 2:
            break
    accepted = replace(varied, prefix=varied.prefix + first.text)
    follow_up = await asked.complete(accepted)
    assert follow_up is None or follow_up.source == "ahead"
    assert (asked.stats["ahead"], asked.stats["model"]) == (1, 1)


async def test_statistics_count_what_healing_the_last_word_computed(
    engine: EngineClient, completer: Callable[..., Completer]
) -> None:
    """It is a request of its own before the answer, and computes nearly the whole prompt."""
    asked = completer()
    before = await engine.status()
    unread = "".join(f"height_{n} = measure(tree_{n})\n" for n in range(12))
    done = await asked.complete(replace(REQUEST, prefix=unread + "sum_of_he", trim=False))
    after = await engine.status()
    assert done is not None
    assert before is not None
    assert after is not None
    computed = after.counters["prefilled_tokens"] - before.counters["prefilled_tokens"]
    assert done.stats.prefilled_tokens == computed > 0.9 * done.stats.prompt_tokens
    assert done.stats.cached_tokens == done.stats.prompt_tokens - computed
    assert after.counters["steps"] - before.counters["steps"] == done.stats.steps
