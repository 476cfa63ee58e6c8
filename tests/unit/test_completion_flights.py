"""Several requests at once: which one is answered, which ends, which goes on with another's."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from atlasd.completion.flights import Superseded
from tests.unit.completing import PREFIX, REQUEST, say, settle


async def test_a_newer_request_of_the_document_ends_the_older_and_cancels_its_stream(
    engine, completer
):
    engine.enqueue(say("return width"), hold=True)
    engine.enqueue(say("pass # nothing"))
    first = asyncio.create_task(completer.complete(REQUEST))
    await settle()
    second = await completer.complete(replace(REQUEST, prefix="class Shape:\n    "))
    with pytest.raises(Superseded):
        await first
    assert second is not None
    assert second.text == "pass # nothing"
    assert engine.cancelled == [1]
    assert completer.stats["superseded"] == 1


async def test_typing_along_a_text_that_is_still_being_decoded_goes_on_with_it(engine, completer):
    engine.enqueue(say("ret", "urn", " width", " * height"), pause=0.01)
    first = asyncio.create_task(completer.complete(REQUEST))
    await asyncio.sleep(0.015)
    second = await completer.complete(replace(REQUEST, prefix=PREFIX + "retu"))
    with pytest.raises(Superseded):
        await first
    assert second is not None
    assert second.text == "rn width * height"
    assert len(engine.submitted) == 1
    assert engine.cancelled == []


async def test_typing_something_else_than_what_is_being_decoded_starts_again(engine, completer):
    engine.enqueue(say("return width"), hold=True)
    engine.enqueue(say("int(height)"))
    first = asyncio.create_task(completer.complete(REQUEST))
    await settle()
    second = await completer.complete(replace(REQUEST, prefix=PREFIX + "pr"))
    with pytest.raises(Superseded):
        await first
    assert second is not None
    assert second.text == "int(height)"
    assert engine.cancelled == [1]


async def test_a_client_that_leaves_cancels_the_stream(engine, completer):
    engine.enqueue(say("return"), hold=True)
    task = asyncio.create_task(completer.complete(REQUEST))
    await settle()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await settle()
    assert engine.cancelled == [1]


async def test_requests_of_different_documents_do_not_end_each_other(engine, completer):
    engine.enqueue(say("return 1"), pause=0.01)
    engine.enqueue(say("return 2"), pause=0.01)
    both = await asyncio.gather(
        completer.complete(REQUEST),
        completer.complete(replace(REQUEST, prefix="def f():\n    ", document="other")),
    )
    assert [one.text for one in both if one] == ["return 1", "return 2"]
