"""``POST /infill`` over a real daemon with a scripted engine."""

from __future__ import annotations

import json

import pytest

from atlasd.engine.protocol import StreamStats
from atlasd.server.infill import inserted, select
from tests.served import House
from tests.served import ask_on_socket as ask


async def test_infill_answers_in_llamacpps_shape(house: House) -> None:
    house.says("x + y\n", stats=StreamStats(prompt_tokens=30, output_tokens=6, prefilled_tokens=7))
    _, body = await ask(house, "/infill", {
        "input_prefix": "def add(x, y):\n", "prompt": "    return ", "input_suffix": "\n",
        "n_predict": 32, "samplers": ["top_k"], "cache_prompt": True, "t_max_prompt_ms": 500,
    })  # fmt: skip
    assert body["content"] == "x + y"
    assert (body["stop"], body["tokens_predicted"], body["tokens_evaluated"]) == (True, 6, 30)
    assert (body["timings"]["prompt_n"], body["truncated"]) == (7, False)
    assert "return " in house.prompt()


async def test_infill_selects_response_fields_as_llamacpp_does(house: House) -> None:
    house.says("x + y\n", stats=StreamStats(prefilled_tokens=7))
    asked = {"input_prefix": "return ", "input_suffix": "\n",
             "response_fields": ["content", "timings/prompt_n", "no/such"]}  # fmt: skip
    assert (await ask(house, "/infill", asked))[1] == {
        "content": "x + y",
        "timings/prompt_n": 7,
    }
    house.says("y")
    assert (await ask(house, "/infill", {**asked, "response_fields": [""]}))[1] == {}


async def test_infill_only_warms_the_cache_when_nothing_is_to_be_predicted(house: House) -> None:
    house.says("abc")
    asked = {"input_prefix": "", "input_suffix": "", "prompt": "", "n_predict": 0,
             "input_extra": [{"filename": "b.py", "text": "def b():\n    pass\n"}]}  # fmt: skip
    _, body = await ask(house, "/infill", asked)
    assert body["content"] == ""
    assert "b.py" in house.prompt()


async def test_context_that_is_more_than_fits_is_left_out_rather_than_refused(
    house: House,
) -> None:
    house.says("x")
    extra = [{"filename": f"{n}.py", "text": "é = 1\n" * 20} for n in range(8)]
    asked = {"input_prefix": "a = 1\n" * 900, "input_suffix": "b = 2\n" * 900,
             "input_extra": extra, "n_predict": 32}  # fmt: skip
    assert (await ask(house, "/infill", asked))[0] == 200
    assert len(house.engine.prompts[0]) + 32 <= 4096
    assert "0.py" in house.prompt()


async def test_infill_gives_several_choices_as_a_list(house: House) -> None:
    for text in ("a + b\n", "b + a\n"):
        house.says(text)
    asked = {"input_prefix": "return ", "input_suffix": "\n", "n_cmpl": 2}
    _, body = await ask(house, "/infill", asked)
    assert sorted(one["content"] for one in body) == ["a + b", "b + a"]


async def test_infill_streams_the_models_own_text(house: House) -> None:
    house.says("ab\n", pieces=1)
    asked = {"input_prefix": "return ", "input_suffix": "\n", "stream": True}
    async with house.unix() as client, client.post("/infill", json=asked) as answer:
        events = [json.loads(line[6:]) for line in (await answer.text()).splitlines() if line]
    assert [one["content"] for one in events] == ["a", "b", "\n", ""]
    assert [one["stop"] for one in events] == [False, False, False, True]


async def test_infill_words_a_missing_key_as_llamacpp_does(house: House) -> None:
    status, body = await ask(house, "/infill", {"input_prefix": ""})
    assert status == 400
    assert body == {"error": {"code": 400, "message": '"input_suffix" is required',
                              "type": "invalid_request_error"}}  # fmt: skip


def test_selecting_fields_of_what_is_no_object_finds_nothing() -> None:
    assert select({"a": {"b": 1}, "c": 2}, ["a/b", "c/d", "a"]) == {"a/b": 1, "a": {"b": 1}}


def test_a_text_that_replaces_brackets_is_given_without_them() -> None:
    from atlasd.completion.request import Completion

    assert inserted(Completion("", "x, y)", replace_right=1), ")\n") == "x, y"
    assert inserted(Completion("", "x, y", replace_right=0), ")\n") == "x, y"


async def test_typing_along_several_choices_asks_no_model(house: House) -> None:
    for text in ("a + b\n", "a * b\n"):
        house.says(text)
    asked = {"input_prefix": "return ", "input_suffix": "\n", "n_cmpl": 2, "top_k": 40}
    await ask(house, "/infill", asked)
    _, body = await ask(house, "/infill", {**asked, "input_prefix": "return a "})
    assert sorted(one["content"] for one in body) == ["* b", "+ b"]
    assert len(house.engine.submitted) == 2


async def test_a_temperature_does_not_keep_suggestions_from_being_typed_along(
    house: House,
) -> None:
    house.says("a + b\n")
    asked = {"input_prefix": "return ", "input_suffix": "\n", "temperature": 0.3}
    await ask(house, "/infill", asked)
    _, body = await ask(house, "/infill", {**asked, "input_prefix": "return a"})
    assert (body["content"], body["source"]) == (" + b", "type-through")


async def test_what_one_client_was_suggested_another_types_along(house: House) -> None:
    house.says("a + b\n")
    cursor = {"prefix": "return ", "suffix": "\n"}
    await ask(house, "/atlasd/v1/complete", cursor)
    asked = {"input_prefix": "return a ", "input_suffix": "\n", "top_k": 40, "top_p": 0.99,
             "n_predict": 128}  # fmt: skip
    _, body = await ask(house, "/infill", asked)
    assert (body["content"], body["source"]) == ("+ b", "type-through")


async def test_as_many_as_there_could_ever_be_may_be_asked_for(house: House) -> None:
    house.says("a + b\n")
    asked = {"input_prefix": "return ", "input_suffix": "\n", "n_predict": 10**30}
    status, body = await ask(house, "/infill", asked)
    assert (status, body["content"]) == (200, "a + b")


async def test_a_stream_ends_in_time_once_a_line_is_there(house: House) -> None:
    house.says("ab\ncd\n" * 20, pieces=3, pause=0.01)
    asked = {"input_prefix": "", "input_suffix": "", "stream": True, "t_max_predict_ms": 1}
    async with house.unix() as client, client.post("/infill", json=asked) as answer:
        events = [json.loads(line[6:]) for line in (await answer.text()).splitlines() if line]
    assert "".join(one["content"] for one in events) == "ab\n"
    assert (events[-1]["stop"], len(house.engine.cancelled)) == (True, 1)


@pytest.mark.parametrize("half", ["\ud83d", "z\ude00", "\ud83d\n", "\ud83dx", "\ud83d\ud83d"])
@pytest.mark.parametrize("client", ["llama.vscode", "tabby", "openai"])
async def test_half_an_emoji_is_no_reason_to_refuse(house: House, client: str, half: str) -> None:
    """Editors that count in UTF-16 cut a text anywhere."""
    prefix, suffix = f"{half}abc", f"def{half}"
    house.says("y")
    path, body = {
        "llama.vscode": ("/infill", {"input_prefix": prefix, "input_suffix": suffix}),
        "tabby": ("/v1/completions", {"segments": {"prefix": prefix, "suffix": suffix}}),
        "openai": ("/v1/completions", {"prompt": prefix, "suffix": suffix}),
    }[client]
    assert (await ask(house, path, body))[0] == 200
    assert half.replace("\ud83d", "?").replace("\ude00", "?") + "abc" in house.prompt()
