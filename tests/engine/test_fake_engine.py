"""The scripted engine behaves as the real client does, so that tests built on it mean something."""

from __future__ import annotations

import pytest

from atlasd.engine.client import EngineStream
from atlasd.engine.framing import unpack_tokens
from atlasd.engine.protocol import Priority
from atlasd.errors import EngineError
from tests.fake_engine import FakeEngine


async def collect(stream: EngineStream) -> list[int]:
    return [token async for message in stream for token in unpack_tokens(message.tokens)]


async def test_a_stream_says_what_was_enqueued():
    engine = FakeEngine()
    engine.enqueue([[1, 2], [3]])
    stream = engine.submit([5, 6], max_tokens=8)
    assert await collect(stream) == [1, 2, 3]
    assert stream.reason == "stop"
    assert stream.stats is not None
    assert stream.stats.prompt_tokens == 2
    assert engine.prompts == [[5, 6]]


async def test_max_tokens_cuts_the_script():
    engine = FakeEngine()
    engine.enqueue([[1, 2], [3]])
    stream = engine.submit([5], max_tokens=2)
    assert await collect(stream) == [1, 2]
    assert stream.reason == "length"


async def test_leaving_the_block_cancels():
    engine = FakeEngine()
    engine.enqueue([[1]], hold=True)
    async with engine.submit([5], max_tokens=9) as stream:
        async for _ in stream:
            break
    assert engine.cancelled == [stream.stream]
    assert stream.reason == "cancelled"


async def test_streams_wait_for_readiness_and_can_be_cancelled_meanwhile():
    engine = FakeEngine(ready=False)
    engine.become_loading()
    kept, dropped = engine.submit([1], max_tokens=4), engine.submit([2], max_tokens=4)
    dropped.cancel()
    assert await collect(dropped) == []
    assert engine.submitted == []
    kept.promote(Priority.CHAT)
    engine.enqueue([[7]])
    engine.become_ready()
    assert await collect(kept) == [7]
    assert engine.submitted[0].priority == Priority.CHAT


async def test_an_error_is_raised_after_what_arrived():
    engine = FakeEngine()
    engine.enqueue([[1]], error="out of memory")
    stream = engine.submit([5], max_tokens=9)
    assert unpack_tokens((await anext(stream)).tokens) == [1]
    with pytest.raises(EngineError, match="out of memory"):
        await anext(stream)


async def test_a_crash_ends_streams_in_flight_with_an_error():
    engine = FakeEngine()
    engine.enqueue([[1]], hold=True)
    stream = engine.submit([5], max_tokens=9)
    assert unpack_tokens((await anext(stream)).tokens) == [1]
    engine.crash()
    with pytest.raises(EngineError, match="SIGKILL"):
        await anext(stream)
    assert engine.state == "loading"


async def test_failure_to_load_is_told_to_every_stream():
    engine = FakeEngine(ready=False)
    engine.become_loading()
    waiting = engine.submit([1], max_tokens=4)
    engine.become_failed("no such model")
    for stream in (waiting, engine.submit([1], max_tokens=4)):
        with pytest.raises(EngineError, match="no such model"):
            await collect(stream)
