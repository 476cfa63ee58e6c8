"""What is decoded while a suggestion is read: who starts it, who takes it, who ends it."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from atlasd.completion.completer import Completer
from atlasd.engine.protocol import Priority
from tests.unit.completing import PREFIX, REQUEST, TOKENIZER, say, settle


async def test_the_follow_up_is_decoded_ahead_at_the_lowest_priority(engine, completer):
    engine.enqueue(say("area = width * height"))
    engine.enqueue(say("\n    return area"))
    first = await completer.complete(REQUEST)
    assert first is not None
    await asyncio.sleep(0.08)
    assert engine.submitted[1].priority == Priority.AHEAD
    assert TOKENIZER.shown(engine.prompts[1]).endswith(f"{PREFIX}{first.text}<|fim_middle|>")
    accepted = replace(REQUEST, prefix=PREFIX + first.text)
    follow_up = await completer.complete(accepted)
    assert follow_up is not None
    assert (follow_up.text, follow_up.source) == ("\n    return area", "ahead")
    assert len(engine.submitted) == 2


async def test_what_is_being_decoded_ahead_is_promoted_when_it_is_asked_for(engine, completer):
    engine.enqueue(say("area = width * height"))
    engine.enqueue(say("\n    ret", "urn area"), pause=0.05)
    await completer.complete(REQUEST)
    await asyncio.sleep(0.12)
    accepted = replace(REQUEST, prefix=PREFIX + "area = width * height\n    ")
    follow_up = await completer.complete(accepted)
    assert follow_up is not None
    assert (follow_up.text, follow_up.source) == ("return area", "ahead")
    assert engine.promoted == [(2, Priority.COMPLETION)]


async def test_anything_else_cancels_what_is_decoded_ahead(engine, completer):
    engine.enqueue(say("area = width * height"))
    engine.enqueue(say("\n"), hold=True)
    engine.enqueue(say("print(1)"))
    await completer.complete(REQUEST)
    await asyncio.sleep(0.08)
    await completer.complete(replace(REQUEST, prefix="x = 1\n"))
    await settle()
    assert engine.cancelled == [2]


async def test_typing_along_keeps_what_is_decoded_ahead(engine, completer):
    engine.enqueue(say("area = width * height"))
    engine.enqueue(say("\n    return area"))
    await completer.complete(REQUEST)
    await asyncio.sleep(0.08)
    await completer.complete(replace(REQUEST, prefix=PREFIX + "area"))
    await asyncio.sleep(0.08)
    assert len(engine.submitted) == 2
    assert engine.cancelled == []


async def test_decoding_ahead_never_starts_an_engine_that_was_stopped(engine, completer):
    engine.enqueue(say("area = width * height"))
    await completer.complete(REQUEST)
    await engine.stop()
    await asyncio.sleep(0.08)
    assert len(engine.submitted) == 1
    assert engine.state == "stopped"


async def test_a_follow_up_that_is_taken_over_is_measured_once(engine, store):
    told = []
    completer = Completer(
        engine, TOKENIZER, None, store, "fake", measured=lambda stats, reason, _: told.append(stats)
    )
    engine.enqueue(say("area = width * height"))
    engine.enqueue(say("\n    ret", "urn area"), pause=0.05)
    await completer.complete(REQUEST)
    await asyncio.sleep(0.12)
    accepted = replace(REQUEST, prefix=PREFIX + "area = width * height\n    ")
    assert await completer.complete(accepted) is not None
    await settle()
    assert len(told) == len(engine.submitted) == 2
    completer.clear()
