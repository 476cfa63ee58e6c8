"""OpenAI's APIs over a real daemon with a scripted engine: shapes, streams, options, refusals."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from atlasd.engine.protocol import StreamStats
from tests.served import House, ask


async def transcript(house: House, path: str, body: dict[str, Any]) -> list[str]:
    """The lines of an event stream, with what changes from run to run masked."""
    async with house.tcp() as client, client.post(path, json={**body, "stream": True}) as answer:
        assert answer.status == 200
        assert answer.content_type == "text/event-stream"
        raw = (await answer.read()).decode()
    assert raw.endswith("\n\n")
    lines = []
    for event in raw.removesuffix("\n\n").split("\n\n"):
        assert event.startswith("data: ")
        assert "\n" not in event
        data = event.removeprefix("data: ")
        if data != "[DONE]":
            value = json.loads(data)
            assert data == json.dumps(value, separators=(",", ":"), ensure_ascii=False)
            for key, masked in (("id", "ID"), ("created", 0), ("timings", {})):
                if key in value:
                    value[key] = masked
            data = json.dumps(value, separators=(",", ":"))
        lines.append(data)
    return lines


async def test_a_text_completion_has_openais_shape(house: House) -> None:
    stats = StreamStats(prompt_tokens=4, cached_tokens=2, prefilled_tokens=2, output_tokens=5,
                        steps=2, decode_ms=10.0, drafted={"positions": 4},
                        accepted={"positions": 3})  # fmt: skip
    house.says("hello", stats=stats)
    status, body = await ask(house, "/v1/completions", {"prompt": "x = ", "model": "any"})
    assert status == 200
    assert body["object"] == "text_completion"
    assert body["model"] == "tiny"
    assert body["choices"] == [
        {"index": 0, "text": "hello", "logprobs": None, "finish_reason": "stop"}
    ]
    assert body["usage"] == {
        "prompt_tokens": 4,
        "completion_tokens": 5,
        "total_tokens": 9,
        "prompt_tokens_details": {"cached_tokens": 2},
        "completion_tokens_details": {
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }
    assert body["timings"]["predicted_per_second"] == 500
    assert (body["timings"]["draft_n"], body["timings"]["draft_n_accepted"]) == (4, 3)
    assert house.engine.submitted[0].max_tokens == 16
    assert house.prompt() == "x = "


async def test_a_streamed_chat_is_told_in_openais_events(house: House) -> None:
    house.says("Hi é", pieces=2)
    lines = await transcript(
        house,
        "/v1/chat/completions",
        {
            "messages": [{"role": "user", "content": "hey"}],
            "stream_options": {"include_usage": True},
        },
    )
    head = '{"id":"ID","object":"chat.completion.chunk","created":0,"model":"tiny","choices":'

    def event(delta: str, reason: str = "null") -> str:
        return (
            f'{head}[{{"index":0,"delta":{delta},"logprobs":null,"finish_reason":{reason}}}]'
            ',"usage":null}'
        )

    assert lines == [
        event('{"role":"assistant","content":""}'),
        event('{"content":"Hi"}'),
        event('{"content":" "}'),
        event('{"content":"\\u00e9"}'),
        event("{}", '"stop"'),
        f'{head}[],"usage":{{"prompt_tokens":22,"completion_tokens":5,"total_tokens":27,'
        '"prompt_tokens_details":{"cached_tokens":0},"completion_tokens_details":'
        '{"accepted_prediction_tokens":0,"rejected_prediction_tokens":0}},"timings":{}}',
        "[DONE]",
    ]
    assert house.prompt() == "<|im_start|>user\nhey<|im_end|>\n<|im_start|>assistant\n"


async def test_a_streamed_text_completion_is_told_in_openais_events(house: House) -> None:
    house.says("ab", reason="length")
    lines = await transcript(house, "/v1/completions", {"prompt": "x"})
    head = '{"id":"ID","object":"text_completion","created":0,"model":"tiny","choices":'

    def event(text: str, reason: str = "null") -> str:
        return f'{head}[{{"index":0,"text":"{text}","logprobs":null,"finish_reason":{reason}}}]}}'

    assert lines == [event("a"), event("b"), event("", '"length"'), "[DONE]"]


async def test_a_chat_answers_whole_with_log_probabilities(house: House) -> None:
    house.says("ok", logprobs=True)
    status, body = await ask(
        house,
        "/v1/chat/completions",
        {
            "messages": [{"role": "user", "content": [{"type": "text", "text": "go"}]}],
            "logprobs": True,
            "top_logprobs": 2,
            "max_completion_tokens": 9,
        },
    )
    assert status == 200
    choice = body["choices"][0]
    assert choice["message"]["content"] == "ok"
    assert [token["token"] for token in choice["logprobs"]["content"]] == ["o", "k"]
    assert choice["logprobs"]["content"][0]["bytes"] == [111]
    assert choice["logprobs"]["content"][0]["top_logprobs"][0]["logprob"] == -0.5
    assert (house.engine.submitted[0].max_tokens, house.engine.submitted[0].logprobs) == (9, 2)


async def test_log_probabilities_of_text_have_offsets(house: House) -> None:
    house.says("aé", logprobs=True, pieces=3)
    _, body = await ask(house, "/v1/completions", {"prompt": "x", "logprobs": 2})
    told = body["choices"][0]["logprobs"]
    assert told["tokens"][0] == "a"
    assert told["text_offset"][:2] == [0, 1]
    assert told["token_logprobs"] == [-0.5, -0.5, -0.5]
    assert told["top_logprobs"][0]["a"] == -0.5


@pytest.mark.parametrize("stop", [[], ["é!?", "!!"]])
async def test_offsets_are_the_same_when_streamed_and_characters_are_counted(
    house: House, stop: list[str]
) -> None:
    """Also of text that is held back because it may be the beginning of a stop string, and of
    characters that several tokens spell."""
    body = {"prompt": "x", "logprobs": 2, "stop": stop}
    house.says("aé! é.", logprobs=True)
    _, whole = await ask(house, "/v1/completions", body)
    house.says("aé! é.", logprobs=True)
    lines = await transcript(house, "/v1/completions", body)
    told = [json.loads(line)["choices"][0]["logprobs"] for line in lines[:-1]]
    streamed = [offset for one in told if one for offset in one["text_offset"]]
    assert streamed == whole["choices"][0]["logprobs"]["text_offset"]
    assert streamed == [0, 1, 1, 2, 3, 4, 4, 5]


async def test_several_choices_and_prompts_come_in_order(house: House) -> None:
    for text in ("a0", "a1", "b0", "b1"):
        house.says(text)
    _, body = await ask(
        house, "/v1/completions", {"prompt": ["a", "b"], "n": 2, "echo": True, "seed": 7}
    )
    assert [choice["text"] for choice in body["choices"]] == ["aa0", "aa1", "bb0", "bb1"]
    samplings = [submit.sampling for submit in house.engine.submitted]
    assert [one.choice for one in samplings] == [0, 1, 0, 1]
    assert {one.seed for one in samplings} == {7}
    assert {one.temperature for one in samplings} == {0.8}


async def test_several_streamed_choices_each_begin_and_end(house: House) -> None:
    house.says("one", pause=0.001)
    house.says("two", pause=0.001)
    body = {"messages": [{"role": "user", "content": "x"}], "n": 2}
    lines = await transcript(house, "/v1/chat/completions", body)
    choices = [json.loads(line)["choices"][0] for line in lines[:-1]]
    for index, text in enumerate(("one", "two")):
        mine = [choice for choice in choices if choice["index"] == index]
        assert mine[0]["delta"] == {"role": "assistant", "content": ""}
        assert "".join(choice["delta"].get("content", "") for choice in mine) == text
        assert [choice["finish_reason"] for choice in mine][-1] == "stop"


async def test_a_stop_string_ends_the_text_and_the_stream(house: House) -> None:
    house.says("one\n\ntwo", hold=True)
    _, body = await ask(house, "/v1/completions", {"prompt": "x", "stop": ["\n\n"]})
    assert body["choices"][0]["text"] == "one"
    assert body["choices"][0]["finish_reason"] == "stop"
    assert house.engine.cancelled == [house.engine.submitted[0].stream]


async def test_a_prompt_may_be_tokens(house: House) -> None:
    house.says("z")
    tokens = house.tokenizer.encode("héllo")
    status, _ = await ask(house, "/v1/completions", {"prompt": tokens})
    assert status == 200
    assert house.engine.prompts[-1] == tokens


async def test_control_tokens_in_a_raw_prompt_are_read_as_such(house: House) -> None:
    house.says("z")
    await ask(house, "/v1/completions", {"prompt": "<|fim_prefix|>a<|fim_suffix|>b<|fim_middle|>"})
    assert house.engine.prompts[-1][0] >= 256


async def test_a_suffix_is_filled_in_the_middle(house: House) -> None:
    house.says("x + y")
    _, body = await ask(
        house, "/v1/completions", {"prompt": "return ", "suffix": "\n", "max_tokens": 8}
    )
    assert body["choices"][0]["text"] == "x + y"
    prompt = house.prompt()
    assert "<|fim_prefix|>" in prompt
    assert "return " in prompt
    assert prompt.endswith("<|fim_middle|>")


async def test_mistrals_fill_in_the_middle_answers_like_a_chat(house: House) -> None:
    body = {"prompt": "return ", "suffix": "\n", "max_tokens": 8, "random_seed": 3}
    house.says("x")
    status, answer = await ask(house, "/v1/fim/completions", body)
    assert status == 200
    assert answer["choices"][0]["message"] == {"role": "assistant", "content": "x"}
    assert (house.engine.submitted[0].sampling.seed, house.prompt()[-14:]) == (
        3, "<|fim_middle|>")  # fmt: skip
    house.says("xy")
    lines = await transcript(house, "/v1/fim/completions", body)
    deltas = [json.loads(line)["choices"][0]["delta"]["content"] for line in lines[:-1]]
    assert deltas == ["x", "y", ""]
    assert json.loads(lines[-2])["usage"]["completion_tokens"] == 2


async def test_a_prediction_is_passed_as_a_draft_and_reported(house: House) -> None:
    house.says("abc", stats=StreamStats(output_tokens=3, prediction_accepted=2,
                                        prediction_rejected=1))  # fmt: skip
    _, body = await ask(
        house,
        "/v1/chat/completions",
        {
            "messages": [{"role": "user", "content": "x"}],
            "prediction": {"type": "content", "content": [{"type": "text", "text": "abd"}]},
        },
    )
    drafted = np.frombuffer(house.engine.submitted[0].prediction, "<i4").tolist()
    assert drafted == house.tokenizer.encode("abd")
    details = body["usage"]["completion_tokens_details"]
    assert (details["accepted_prediction_tokens"], details["rejected_prediction_tokens"]) == (2, 1)


async def test_sampling_keys_reach_the_engine(house: House) -> None:
    house.says("a")
    body = {"prompt": "x", "temperature": 0.5, "top_p": 0.9, "top_k": 5, "min_p": 0.1,
            "repeat_penalty": 1.1, "presence_penalty": 0.3, "frequency_penalty": -0.2,
            "logit_bias": {"65": -100}, "seed": 11}  # fmt: skip
    await ask(house, "/v1/completions", body)
    one = house.engine.submitted[0].sampling
    assert (one.temperature, one.top_p, one.top_k, one.min_p) == (0.5, 0.9, 5, 0.1)
    assert (one.repetition_penalty, one.presence_penalty) == (1.1, 0.3)
    assert (one.frequency_penalty, one.logit_bias, one.seed) == (-0.2, {65: -100.0}, 11)


async def test_the_served_model_is_listed(house: House) -> None:
    async with house.tcp() as client:
        async with client.get("/v1/models") as answer:
            listed = await answer.json()
        assert [one["id"] for one in listed["data"]] == ["tiny"]
        async with client.get("/v1/models/tiny") as answer:
            assert (await answer.json())["object"] == "model"
        async with client.get("/v1/models/a/b") as answer:
            assert answer.status == 404
            assert (await answer.json())["error"]["code"] == "model_not_found"


async def test_an_engine_that_fails_is_a_503_and_in_a_stream_its_last_event(house: House) -> None:
    house.says("ab", error="out of memory")
    status, body = await ask(house, "/v1/completions", {"prompt": "x"})
    assert (status, body["error"]["type"]) == (503, "unavailable_error")
    house.says("ab", error="out of memory")
    lines = await transcript(house, "/v1/completions", {"prompt": "x"})
    assert "out of memory" in json.loads(lines[-1])["error"]["message"]


async def test_every_prompt_counts_once_whatever_its_choices(house: House) -> None:
    for tokens in (3, 3, 5, 5):
        house.says("a", stats=StreamStats(prompt_tokens=tokens, cached_tokens=tokens - 1,
                                          output_tokens=1))  # fmt: skip
    _, body = await ask(house, "/v1/completions", {"prompt": ["abc", "abcde"], "n": 2})
    usage = body["usage"]
    assert (usage["prompt_tokens"], usage["completion_tokens"], usage["total_tokens"]) == (8, 4, 12)
    assert usage["prompt_tokens_details"]["cached_tokens"] == 6


async def test_without_a_seed_or_with_any_every_request_draws_its_own(house: House) -> None:
    for more in ({}, {}, {"seed": -1}, {"seed": -1}, {"seed": -2}, {"seed": 3}):
        house.says("a")
        await ask(house, "/v1/completions", {"prompt": "x", "temperature": 1, **more})
    seeds = [submit.sampling.seed for submit in house.engine.submitted]
    assert len(set(seeds)) == 6
    assert min(seeds) >= 0
    assert seeds[-1] == 3


async def test_a_top_p_of_nothing_leaves_the_likeliest_token(house: House) -> None:
    house.says("a")
    status, _ = await ask(house, "/v1/completions", {"prompt": "x", "temperature": 1, "top_p": 0})
    assert status == 200
    assert 0 < house.engine.submitted[0].sampling.top_p < 1e-5
