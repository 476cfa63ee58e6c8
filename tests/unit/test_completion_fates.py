"""What became of suggestions: what is stored of it, and what is learned from."""

from __future__ import annotations

import tracemalloc
from dataclasses import replace

import pytest

from atlasd.engine.framing import unpack_tokens
from atlasd.engine.protocol import AddSegment
from atlasd.errors import RequestError
from tests.unit.completing import PREFIX, REQUEST, Repository, make_completer, say, settle


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


async def test_a_secret_that_the_line_shows_to_be_one_is_not_stored(engine, completer, store):
    """The suggestion by itself is any word: the name it is assigned to stands left of it."""
    engine.enqueue(say('hunter22xyz"'))
    done = await completer.complete(replace(REQUEST, prefix=PREFIX + 'password = "'))
    assert done is not None
    await settle()
    assert [row.text for row in store.rows] == ['***********"']


async def test_a_fate_that_does_not_exist_is_refused(completer):
    with pytest.raises(RequestError, match="no fate"):
        await completer.fate("1", "eaten")


@pytest.mark.parametrize(
    ("fate", "length", "learned"),
    [
        ("accepted_line", None, b"    area = width"),
        ("accepted_word", None, b"    area"),
        ("accepted_word", 6, b"    area ="),
        ("accepted", None, b"    area = width\n    return area"),
        ("accepted", 3, b"    area = width\n    return area"),
    ],
)
async def test_only_what_was_accepted_is_learned(engine, completer, fate, length, learned):
    engine.enqueue(say("area = width\n    return area"))
    done = await completer.complete(REQUEST)
    assert done is not None
    await completer.fate(done.id, fate, length)
    (segment,) = [each for each in engine.sent if isinstance(each, AddSegment)]
    assert bytes(unpack_tokens(segment.tokens)) == learned


async def test_an_open_repository_that_is_not_trusted_is_believed_over_the_client(
    engine, store, monkeypatch
):
    monkeypatch.setattr(Repository, "trusted", False)
    completer = make_completer(engine, store)
    engine.enqueue(say("return width * height"))
    done = await completer.complete(REQUEST)
    assert done is not None
    await completer.fate(done.id, "accepted")
    await settle()
    assert REQUEST.trusted
    assert store.rows == []
    assert not any(isinstance(each, AddSegment) for each in engine.sent)
    assert engine.submitted[0].learn is False
    assert completer.why(done.id)["trusted"] is False
    completer.clear()


async def test_no_document_is_kept_with_the_suggestions_that_were_given(engine, completer):
    document = "x = 1\n" * 200_000
    engine.enqueue(say("return width"))
    tracemalloc.start()
    for number in range(20):
        asked = replace(REQUEST, prefix=f"{number}\n{document}{PREFIX}", document=None)
        if number:
            engine.enqueue(say("return width"))
        assert await completer.complete(asked) is not None
        completer._ahead.cancel()
    del asked
    held, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert held < 12 * len(document)
