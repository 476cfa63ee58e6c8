"""The completer with a scripted engine: who is asked, who is cancelled, what is remembered."""

from __future__ import annotations

import asyncio
import itertools
from dataclasses import replace
from types import SimpleNamespace

import pytest

from atlasd.completion import decoding
from atlasd.completion.completer import Completer
from atlasd.completion.request import CompletionRequest, Piece
from atlasd.engine.framing import unpack_tokens
from atlasd.engine.protocol import Priority, Sampling, StreamStats
from atlasd.errors import EngineError
from tests.unit.byte_tokenizer import ByteTokenizer
from tests.unit.completing import PREFIX, REQUEST, TOKENIZER, say, settle


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
    assert TOKENIZER.shown(engine.prompts[0][: submit.prefix_end]).endswith(PREFIX)


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


async def test_decoding_ends_when_its_time_is_over_and_a_line_is_there(
    engine, completer, monkeypatch
):
    # Every look at the clock takes 20 ms.
    clock = itertools.count(step=0.02)
    monkeypatch.setattr(decoding, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    engine.enqueue(say("a = 1\n", "    b = 2\n", "    c = 3\n", "    d = 4"))
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


async def test_several_suggestions_are_typed_through_like_one(engine, completer):
    asked = replace(REQUEST, sampling=Sampling(temperature=0.8, seed=5))
    for text in ("return width", "return 2 * height"):
        engine.enqueue(say(text))
    await completer.choices(asked, 2)
    along = replace(asked, prefix=PREFIX + "return ")
    found = await completer.choices(along, 2)
    assert [one.text for one in found] == ["width", "2 * height"]
    (first,) = [await completer.complete(replace(REQUEST, prefix=along.prefix))]
    assert first.text == "width"
    assert len(engine.submitted) == 2


async def test_a_suggestion_is_not_longer_than_was_asked_for(engine, completer):
    engine.enqueue(say("return width * height"))
    engine.enqueue(say("return"), reason="length")
    await completer.complete(REQUEST)
    short = await completer.complete(replace(REQUEST, max_tokens=6))
    assert short is not None
    assert short.text == "return"
    assert engine.submitted[1].max_tokens == 6
    engine.enqueue(say("return width * height"))
    longer = await completer.complete(REQUEST)
    assert longer is not None
    assert longer.text == "return width * height"


async def test_a_model_with_a_damaged_chat_template_still_completes(engine, store):
    class Damaged(ByteTokenizer):
        chat_template = "{% for %}"

    completer = Completer(engine, Damaged(), None, store, "fake")
    engine.enqueue(say("return width"))
    done = await completer.complete(REQUEST)
    assert done is not None
    assert done.text == "return width"
    completer.clear()
