"""The door that new weights shut: who came before ends first, whoever comes later waits."""

from __future__ import annotations

from llguidance import LLTokenizer

from atlasd.draft.constraint import Constraint
from atlasd.engine.inprocess import Outputs, request, run
from atlasd.engine.protocol import Priority, Reload
from atlasd.engine.reloading import Reloading
from atlasd.engine.steps import Engine
from bench.identity_cases import GRAMMARS
from tests.engine.hash_decoder import HashDecoder
from tests.served import byte_tokenizer

TOKENIZER = byte_tokenizer()


def door() -> tuple[Reloading, Engine, Outputs]:
    outputs = Outputs()
    engine = Engine(HashDecoder(vocab_size=TOKENIZER.vocab_size), outputs.take)
    return Reloading(engine), engine, outputs


def test_weights_are_due_once_the_streams_before_them_have_ended() -> None:
    shut, engine, outputs = door()
    shut.admit(request(1, [1, 2], max_tokens=3))
    assert not shut.due
    assert shut.ask(Reload(7, "new")) is None
    shut.admit(request(2, [1, 2], max_tokens=3))
    run(engine)
    assert list(outputs) == [1]
    assert shut.due
    assert shut.take().request == 7
    shut.release()
    run(engine)
    assert outputs[2].reason == "length"


def test_a_constrained_request_waits_too_and_keeps_its_constraint() -> None:
    shut, engine, outputs = door()
    vocabulary = LLTokenizer(
        TOKENIZER.serialized(), n_vocab=TOKENIZER.vocab_size, eos_token=list(TOKENIZER.eos_ids)
    )
    shut.ask(Reload(1, "new"))
    constraint = Constraint(vocabulary, GRAMMARS["regex"])
    shut.admit(request(1, [1, 2], max_tokens=60, stop_tokens=TOKENIZER.eos_ids), constraint)
    assert not engine.busy
    shut.take()
    shut.release()
    run(engine)
    text = TOKENIZER.decode(outputs[1].tokens)
    assert text.startswith(("alpha is ", "beta is "))
    assert text.endswith("; that is all")


def test_who_waits_can_be_cancelled_and_promoted() -> None:
    shut, engine, outputs = door()
    shut.ask(Reload(1, "new"))
    waiting = request(1, [1, 2], max_tokens=60)
    shut.admit(waiting)
    shut.admit(request(2, [1, 2], max_tokens=60))
    shut.promote(1, Priority.CHAT)
    assert waiting.priority is Priority.CHAT
    shut.cancel(2)
    assert outputs[2].reason == "cancelled"
    shut.take()
    shut.release()
    shut.cancel(1)
    assert outputs[1].reason == "cancelled"
    assert not engine.busy


def test_of_two_reloads_the_newer_one_is_loaded() -> None:
    shut, _, _ = door()
    shut.ask(Reload(1, "new"))
    before = shut.ask(Reload(2, "newer"))
    assert before is not None
    assert before.request == 1
    assert shut.take().model == "newer"
