"""The completer with a scripted engine: who is asked, who is cancelled, what is remembered."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from atlasd.completion.completer import Completer
from atlasd.completion.request import CompletionRequest, Piece
from atlasd.engine.framing import unpack_tokens
from atlasd.engine.protocol import AddSegment, Priority, Sampling, StreamStats
from atlasd.errors import EngineError, RequestError
from tests.fake_engine import FakeEngine
from tests.unit.byte_tokenizer import ByteTokenizer
from tests.unit.completing import PREFIX, REQUEST, TOKENIZER, Store, make_completer, say, settle


@pytest.fixture
async def engine() -> AsyncIterator[FakeEngine]:
    engine = FakeEngine()
    yield engine
    await engine.stop()


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
async def completer(engine: FakeEngine, store: Store) -> AsyncIterator[Completer]:
    completer = make_completer(engine, store)
    yield completer
    completer.clear()


async def test_a_suggestion_comes_trimmed_from_the_model_and_is_stored(engine, completer, store):
    engine.enqueue(say("return width * ", "height\n\n\ndef other():\n    pass"))
    done = await completer.complete(REQUEST)
    assert done is not None
    assert (done.text, done.source, done.trimmed_by) == (
        "return width * height",
        "model",
        ("scope",),
    )
    assert done.model == "fake"
    assert done.prompt_tokens == len(engine.prompts[0])
    await settle()
    assert [row.id for row in store.rows] == [done.id]
    assert (store.rows[0].repository, store.rows[0].language) == ("/repo", "python")


async def test_the_prompt_names_repository_and_path_and_puts_the_suffix_first(engine, completer):
    engine.enqueue(say("return 1"))
    await completer.complete(REQUEST)
    assert TOKENIZER.shown(engine.prompts[0]) == (
        "<|repo_name|>shapes\n<|file_sep|>shapes.py\n"
        f"<|fim_suffix|>\n<|fim_prefix|>{PREFIX}<|fim_middle|>"
    )
    submit = engine.submitted[0]
    assert (submit.repository, submit.language, submit.priority) == (
        "/repo",
        "python",
        Priority.COMPLETION,
    )


async def test_the_stream_is_cancelled_once_the_text_leaves_the_block(engine, completer):
    engine.enqueue(say("return 1\n", "def next", "_one():\n", "    pass\n" * 50), hold=True)
    done = await completer.complete(REQUEST)
    assert done is not None
    assert done.text == "return 1"
    assert engine.cancelled == [1]


async def test_typing_along_a_suggestion_and_back_asks_the_engine_nothing(engine, completer):
    engine.enqueue(say("return width * height"))
    await completer.complete(REQUEST)
    for typed in ("r", "return", "return width * heigh", "retu", ""):
        rest = await completer.complete(replace(REQUEST, prefix=PREFIX + typed, document="other"))
        assert rest is not None
        assert rest.source == "type-through"
        assert typed + rest.text == "return width * height"
    assert len(engine.submitted) == 1


async def test_the_whole_suggestion_typed_leaves_nothing_to_type_through(engine, completer):
    engine.enqueue(say("return 12345"))
    engine.enqueue(say("\n\n\nclass X:"))
    await completer.complete(REQUEST)
    await completer.complete(replace(REQUEST, prefix=PREFIX + "return 12345"))
    assert len(engine.submitted) == 2


async def test_a_bracket_the_editor_closed_while_typing_along_is_replaced(engine, completer):
    engine.enqueue(say("print(width)\n    return 1"))
    await completer.complete(REQUEST)
    typed = replace(REQUEST, prefix=PREFIX + "print(", suffix=")\n")
    rest = await completer.complete(typed)
    assert rest is not None
    assert (rest.text, rest.replace_right) == ("width)\n    return 1", 1)
    assert len(engine.submitted) == 1


async def test_nothing_to_suggest_is_remembered_too(engine, completer):
    engine.enqueue(say("   \n"))
    assert await completer.complete(REQUEST) is None
    assert await completer.complete(REQUEST) is None
    assert len(engine.submitted) == 1


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


async def test_accepted_text_becomes_a_segment_and_its_fate_is_stored(engine, completer, store):
    engine.enqueue(say("return width * height"))
    done = await completer.complete(replace(REQUEST, prefix=PREFIX + "x = 1; "))
    assert done is not None
    await completer.fate(done.id, "shown")
    await completer.fate(done.id, "accepted_word", 6)
    (segment,) = [each for each in engine.sent if isinstance(each, AddSegment)]
    assert (segment.kind, segment.repository) == ("accepted", "/repo")
    assert bytes(unpack_tokens(segment.tokens)) == b"    x = 1; return"
    await completer.fate(done.id, "accepted")
    last = [each for each in engine.sent if isinstance(each, AddSegment)][-1]
    assert last.segment == segment.segment
    assert bytes(unpack_tokens(last.tokens)) == b"    x = 1; return width * height"
    assert store.fates == [
        (done.id, "shown", None),
        (done.id, "accepted_word", 6),
        (done.id, "accepted", None),
    ]


async def test_a_suggestion_typed_through_is_stored_when_its_fate_is_told(engine, completer, store):
    engine.enqueue(say("return width * height"))
    await completer.complete(REQUEST)
    rest = await completer.complete(replace(REQUEST, prefix=PREFIX + "ret"))
    assert rest is not None
    await settle()
    assert len(store.rows) == 1
    await completer.fate(rest.id, "accepted")
    assert [row.text for row in store.rows] == ["return width * height", "urn width * height"]


async def test_nothing_of_an_untrusted_workspace_is_stored_or_learned(engine, completer, store):
    engine.enqueue(say("return width * height"))
    done = await completer.complete(replace(REQUEST, trusted=False))
    assert done is not None
    await completer.fate(done.id, "accepted")
    await settle()
    assert store.rows == []
    assert not any(isinstance(each, AddSegment) for each in engine.sent)
    assert engine.submitted[0].learn is False


async def test_why_tells_the_prompt_the_rules_and_the_cost(engine, completer):
    engine.enqueue(say("return 1\n\n\ndef f(): pass\n"), stats=StreamStats(prefill_ms=3.0))
    done = await completer.complete(REQUEST)
    assert done is not None
    why = completer.why(done.id)
    assert why is not None
    assert why == completer.why()
    assert [part["name"] for part in why["prompt"]] == [
        "repository",
        "file",
        "suffix",
        "prefix",
        "middle",
    ]
    assert why["trimmed_by"] == ["scope"]
    assert why["raw"].startswith("return 1\n")
    assert why["template"] == "qwen spm"
    assert completer.why("nothing of that name") is None


async def test_raw_requests_are_neither_trimmed_nor_remembered(engine, completer):
    raw = replace(REQUEST, trim=False, document=None)
    for _ in range(2):
        engine.enqueue(say("return 1\n\n\ndef f():\n    pass\n"))
        done = await completer.complete(raw)
        assert done is not None
        assert done.text == "return 1\n\n\ndef f():\n    pass\n"
    await asyncio.sleep(0.08)
    assert len(engine.submitted) == 2


async def test_choices_are_different_texts_with_the_greedy_one_first(engine, completer):
    for text in ("return 1", "return 22", "return 1"):
        engine.enqueue(say(text))
    found = await completer.choices(replace(REQUEST, sampling=Sampling(temperature=0.6)), 3)
    assert [one.text for one in found] == ["return 1", "return 22"]
    assert [submit.sampling.choice for submit in engine.submitted] == [0, 1, 2]
    assert [submit.sampling.temperature for submit in engine.submitted] == [0.0, 0.6, 0.6]


async def test_a_failure_of_the_engine_is_raised(engine, completer):
    engine.enqueue([], error="out of memory")
    with pytest.raises(EngineError, match="out of memory"):
        await completer.complete(REQUEST)


async def test_a_fate_that_does_not_exist_is_refused(completer):
    with pytest.raises(RequestError, match="no fate"):
        await completer.fate("1", "eaten")


async def test_decoding_ends_when_its_time_is_over_and_a_line_is_there(engine, completer):
    engine.enqueue(say("a = 1\n", "    b = 2\n", "    c = 3\n", "    d = 4"), pause=0.03)
    done = await completer.complete(replace(REQUEST, max_ms=45.0))
    assert done is not None
    assert done.text.startswith("a = 1\n    b = 2")
    assert "d" not in done.text
    assert engine.cancelled == [1]


async def test_pieces_that_the_client_brings_stand_before_the_file(engine, completer):
    engine.enqueue(say("return 1"))
    await completer.complete(replace(REQUEST, pieces=(Piece("lib.py", "def lib(): ..."),)))
    assert TOKENIZER.shown(engine.prompts[0]).startswith(
        "<|repo_name|>shapes\n<|file_sep|>lib.py\ndef lib(): ...\n<|file_sep|>shapes.py\n"
    )


async def test_a_model_without_any_format_gets_the_prefix_and_its_last_word_is_healed(engine):
    words = ByteTokenizer(["<|endoftext|>"], words=["re", "ret", "return", "wid", "width"])
    completer = Completer(engine, words, None, None, "plain")
    engine.enqueue([[words.token_id("return")]])
    engine.enqueue([words.encode(" width")])
    done = await completer.complete(CompletionRequest("def f(width):\n    ret", ""))
    assert done is not None
    assert done.text == "urn width"
    healing, decoding = engine.submitted
    assert healing.max_tokens == 1
    allowed = {words.token_id(word) for word in ("re", "ret", "return")} | {*b" r"} - {ord(" ")}
    assert set(healing.sampling.logit_bias) == allowed
    assert words.shown(unpack_tokens(decoding.tokens)) == "def f(width):\n    return"
    assert completer.template == "plain prefix"
    completer.clear()


async def test_files_with_carriage_returns_are_typed_through_as_well(engine, completer):
    engine.enqueue(say("a = 1\n    return a"))
    dos = replace(REQUEST, prefix=PREFIX.replace("\n", "\r\n"), suffix="\r\n")
    first = await completer.complete(dos)
    assert first is not None
    assert first.text == "a = 1\n    return a"
    rest = await completer.complete(replace(dos, prefix=dos.prefix + "a = 1\r\n    re"))
    assert rest is not None
    assert (rest.text, rest.source) == ("turn a", "type-through")
    assert "\r" not in TOKENIZER.shown(engine.prompts[0])


async def test_decoding_ahead_never_starts_an_engine_that_was_stopped(engine, completer):
    engine.enqueue(say("area = width * height"))
    await completer.complete(REQUEST)
    await engine.stop()
    await asyncio.sleep(0.08)
    assert len(engine.submitted) == 1
    assert engine.state == "stopped"
