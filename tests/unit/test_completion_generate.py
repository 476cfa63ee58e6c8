"""Token streams become text: stop strings, broken characters, log-probabilities, cancelling."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from atlasd.completion.generate import Chunk, Generation, generate
from atlasd.completion.stop_strings import StopStrings
from atlasd.engine.protocol import Alternative, TokenLogprob
from atlasd.errors import EngineError
from tests.fake_engine import FakeEngine
from tests.unit.byte_tokenizer import ByteTokenizer

TOKENIZER = ByteTokenizer()
END = TOKENIZER.eos_ids[0]


def naive_cut(text: str, stops: list[str]) -> str:
    """The text before the stop string that ends first, and of those the one that starts first."""
    ends = [(text.find(stop) + len(stop), text.find(stop)) for stop in stops if stop in text]
    return text[: min(ends)[1]] if ends else text


letters = st.text(alphabet="ab\n", max_size=40)


@settings(deadline=None)
@given(letters, st.lists(st.text(alphabet="ab\n", min_size=1, max_size=5), max_size=4), st.data())
def test_stop_strings_cut_as_on_the_whole_text_for_every_chunking(
    text: str, stops: list[str], data: st.DataObject
) -> None:
    cutter, shown, rest = StopStrings(stops), "", text
    while rest and cutter.found is None:
        size = data.draw(st.integers(1, 5))
        shown, rest = shown + cutter.feed(rest[:size]), rest[size:]
        assert naive_cut(text, stops).startswith(shown)
    assert shown + cutter.flush() == naive_cut(text, stops)


@settings(deadline=None)
@given(st.text(max_size=30), st.lists(st.text(min_size=1, max_size=3), max_size=2), st.data())
def test_text_of_any_characters_arrives_whole_for_every_chunking(
    text: str, stops: list[str], data: st.DataObject
) -> None:
    tokens = TOKENIZER.encode(text)
    batches = []
    while tokens:
        size = data.draw(st.integers(1, 6))
        batches.append(tokens[:size])
        tokens = tokens[size:]

    async def read() -> str:
        engine = FakeEngine()
        engine.enqueue(batches)
        generation = generate(engine, TOKENIZER, [1], max_tokens=1000, stop=stops)
        shown = await generation.text()
        assert generation.finish_reason == "stop"
        await engine.stop()
        return shown

    assert asyncio.run(read()) == naive_cut(text, stops)


async def test_a_stop_string_across_tokens_ends_and_cancels(engine: FakeEngine) -> None:
    engine.enqueue([TOKENIZER.encode("one\n#"), TOKENIZER.encode("# two"), [65]], pause=0.01)
    generation = generate(engine, TOKENIZER, [1], max_tokens=100, stop=["\n##"])
    assert await generation.text() == "one"
    assert (generation.finish_reason, generation.stop) == ("stop", "\n##")
    assert engine.cancelled == [1]


async def test_text_held_back_for_a_stop_string_comes_at_the_end(engine: FakeEngine) -> None:
    engine.enqueue([TOKENIZER.encode("one\n#")], reason="length")
    generation = generate(engine, TOKENIZER, [1], max_tokens=100, stop=["\n##"])
    assert await generation.text() == "one\n#"
    assert generation.finish_reason == "length"


async def test_a_stop_token_is_no_text(engine: FakeEngine) -> None:
    engine.enqueue([[*b"ab", END]])
    assert await generate(engine, TOKENIZER, [1], max_tokens=9).text() == "ab"
    assert engine.submitted[0].stop_tokens == [END]


async def test_half_a_character_at_the_end_is_replaced(engine: FakeEngine) -> None:
    engine.enqueue([list("aé".encode())[:-1]], reason="length")
    assert await generate(engine, TOKENIZER, [1], max_tokens=9).text() == "a\ufffd"


async def test_scores_come_with_bytes_and_alternatives(engine: FakeEngine) -> None:
    scores = [TokenLogprob(-0.5, [Alternative(97, -0.5), Alternative(98, -2.0)])]
    engine.enqueue([[97]], logprobs=[scores])
    chunks = [chunk async for chunk in generate(engine, TOKENIZER, [1], max_tokens=9, logprobs=2)]
    (score,) = chunks[0].scores
    assert (score.token, score.text, score.data, score.logprob) == (97, "a", b"a", -0.5)
    assert [(other.text, other.logprob) for other in score.top] == [("a", -0.5), ("b", -2.0)]
    assert engine.submitted[0].logprobs == 2


async def test_leaving_early_cancels(engine: FakeEngine) -> None:
    engine.enqueue([[97], [98]], hold=True)
    async with generate(engine, TOKENIZER, [1], max_tokens=9) as generation:
        async for chunk in generation:
            assert chunk == Chunk("a")
            break
    assert engine.cancelled == [1]
    assert generation.finish_reason == "cancelled"


async def test_a_generation_that_nobody_reads_is_cancelled_by_closing(engine: FakeEngine) -> None:
    engine.enqueue([[97]], hold=True)
    generation = generate(engine, TOKENIZER, [1], max_tokens=9)
    await generation.aclose()
    await generation.aclose()
    assert engine.cancelled == [1]


async def test_a_cancelled_reader_cancels_the_stream(engine: FakeEngine) -> None:
    engine.enqueue([[97]], hold=True)
    task = asyncio.create_task(generate(engine, TOKENIZER, [1], max_tokens=9).text())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert engine.cancelled == [1]


async def test_finishing_waits_for_the_statistics(engine: FakeEngine) -> None:
    engine.enqueue([[97], [98]], hold=True)
    generation: Generation = generate(engine, TOKENIZER, [1], max_tokens=9)
    async for _ in generation:
        await generation.finish()
        break
    assert generation.finish_reason == "stop"
    assert generation.stream.reason == "cancelled"


async def test_a_failed_stream_raises(engine: FakeEngine) -> None:
    engine.enqueue([[97]], error="out of memory")
    with pytest.raises(EngineError, match="out of memory"):
        await generate(engine, TOKENIZER, [1], max_tokens=9).text()


async def test_the_lead_is_text_and_counts_for_stop_strings(engine: FakeEngine) -> None:
    engine.enqueue([[*b"b"]])
    generation = generate(engine, TOKENIZER, [1], max_tokens=9, lead=b"a", stop=["ab"])
    assert await generation.text() == ""
