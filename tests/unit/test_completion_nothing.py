"""Why nothing was suggested, and what must not be remembered of what was cut short."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from atlasd.completion.completer import Completer
from atlasd.completion.flights import Superseded
from atlasd.errors import EngineError, StoreError
from tests.unit.completing import REQUEST, say, settle


def reason(completer: Completer) -> object:
    why = completer.why()
    assert why is not None
    assert why == completer.why(str(why["id"]))
    return why.get("nothing")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "ended its text at once"),
        ("   \n", "nothing but white space"),
        ("x", "trimming left nothing of what the model wrote (too short)"),
    ],
)
async def test_an_empty_answer_has_a_reason(engine, completer, text: str, says: str) -> None:
    engine.enqueue(say(text))
    assert await completer.complete(REQUEST) is None
    assert says in str(reason(completer))
    why = completer.why()
    assert why["raw"] == text
    assert [part["name"] for part in why["prompt"]][-1] == "middle"
    assert await completer.complete(REQUEST) is None
    assert str(reason(completer)).endswith("is remembered")


async def test_a_suggestion_after_it_is_the_last_one_again(engine, completer) -> None:
    engine.enqueue(say(""))
    engine.enqueue(say("return 12"))
    assert await completer.complete(REQUEST) is None
    done = await completer.complete(replace(REQUEST, prefix="def f():\n    "))
    assert done is not None
    assert completer.why()["id"] == done.id
    assert reason(completer) is None


async def test_requests_that_were_overtaken_withdrawn_or_failed_say_so(engine, completer) -> None:
    engine.enqueue(say("return"), hold=True)
    engine.enqueue(say("return"), hold=True)
    first = asyncio.create_task(completer.complete(REQUEST))
    await settle()
    second = asyncio.create_task(completer.complete(replace(REQUEST, prefix="x = ")))
    with pytest.raises(Superseded):
        await first
    assert "newer request" in str(reason(completer))
    await settle()
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    assert "withdrew" in str(reason(completer))
    engine.enqueue([], error="out of memory")
    with pytest.raises(EngineError):
        await completer.complete(replace(REQUEST, prefix="y = "))
    assert "out of memory" in str(reason(completer))


async def test_a_text_cut_by_unloading_the_model_is_not_remembered(engine, completer) -> None:
    engine.enqueue(say("return wid"), hold=True)
    task = asyncio.create_task(completer.complete(REQUEST))
    await settle()
    await engine.stop()
    with pytest.raises(EngineError, match="unloaded"):
        await task
    engine.enqueue(say("return width * height"))
    done = await completer.complete(REQUEST)
    assert done is not None
    assert done.text == "return width * height"


async def test_a_suggestion_that_could_not_be_stored_is_stored_with_its_fate(
    engine, completer, store
) -> None:
    store.failures = 1
    engine.enqueue(say("return width"))
    done = await completer.complete(REQUEST)
    assert done is not None
    await settle()
    assert store.rows == []
    await completer.fate(done.id, "shown")
    assert [row.id for row in store.rows] == [done.id]
    store.failures = 1
    engine.enqueue(say("return height"))
    other = await completer.complete(replace(REQUEST, prefix="def g():\n    "))
    assert other is not None
    store.failures += 1
    await settle()
    with pytest.raises(StoreError):
        await completer.fate(other.id, "shown")
    await completer.fate(other.id, "accepted")
    assert [row.id for row in store.rows] == [done.id, other.id]
