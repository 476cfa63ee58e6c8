"""What clients of llama.cpp's server ask for besides /infill."""

from __future__ import annotations

import json

import pytest

from atlasd.engine.protocol import StreamStats
from tests.served import House, ask


async def test_props_and_slots_describe_the_model(house: House) -> None:
    status, props = await ask(house, "/props")
    assert status == 200
    assert props["default_generation_settings"]["n_ctx"] == 4096
    assert (props["total_slots"], props["model_path"]) == (16, "tiny")
    assert "im_start" in props["chat_template"]
    assert props["modalities"] == {"vision": False, "audio": False}
    _, slots = await ask(house, "/slots")
    assert [slot["id"] for slot in slots] == list(range(16))
    assert slots[0] == {"id": 0, "n_ctx": 4096, "is_processing": False}


async def test_text_becomes_tokens_and_text_again(house: House) -> None:
    text = "héllo <|im_end|>"
    _, plain = await ask(house, "/tokenize", {"content": text, "parse_special": False})
    assert plain["tokens"] == house.tokenizer.encode(text)
    _, parsed = await ask(house, "/tokenize", {"content": text})
    assert len(parsed["tokens"]) == len("héllo ".encode()) + 1
    _, pieces = await ask(house, "/tokenize", {"content": "é!", "with_pieces": True})
    assert [one["piece"] for one in pieces["tokens"]] == [[0xC3], [0xA9], "!"]
    _, pieces = await ask(house, "/tokenize", {"content": "<|im_end|>", "with_pieces": True})
    assert [one["piece"] for one in pieces["tokens"]] == ["<|im_end|>"]
    for tokens in (plain["tokens"], parsed["tokens"]):
        _, back = await ask(house, "/detokenize", {"tokens": tokens})
        assert back == {"content": text}
    status, wrong = await ask(house, "/detokenize", {"tokens": [99999]})
    assert (status, wrong["error"]["code"]) == (400, 400)


async def test_a_conversation_becomes_its_prompt(house: House) -> None:
    body = {"messages": [{"role": "user", "content": "hey"}]}
    _, told = await ask(house, "/apply-template", body)
    assert told == {"prompt": "<|im_start|>user\nhey<|im_end|>\n<|im_start|>assistant\n"}


@pytest.mark.parametrize("path", ["/completion", "/completions"])
async def test_a_prompt_goes_on(house: House, path: str) -> None:
    house.says("one\n\ntwo", hold=True)
    body = {"prompt": "<|fim_prefix|>x = ", "n_predict": 20, "stop": ["\n\n"], "n_probs": 0}
    status, answer = await ask(house, path, body)
    assert status == 200
    assert (answer["content"], answer["stop_type"], answer["stopping_word"]) == (
        "one", "word", "\n\n")  # fmt: skip
    assert (answer["stop"], answer["model"], answer["has_new_line"]) == (True, "tiny", False)
    assert house.engine.submitted[0].max_tokens == 20
    assert house.prompt() == "<|fim_prefix|>x = "


async def test_a_prompt_may_mix_texts_and_tokens_and_fill_all_there_is(house: House) -> None:
    house.says("z", reason="length")
    body = {"prompt": [65, "b", 67], "response_fields": ["content", "timings/predicted_n"]}
    _, answer = await ask(house, "/completion", body)
    assert answer == {"content": "z", "timings/predicted_n": 1}
    assert house.engine.prompts[0] == [65, *house.tokenizer.encode("b"), 67]
    assert house.engine.submitted[0].max_tokens == 4093


@pytest.mark.parametrize(
    ("stats", "prompt_ms"),
    [
        (StreamStats(prefilled_tokens=1, decode_ms=6, output_tokens=3, rows=4), 1.5),
        (StreamStats(prefilled_tokens=9, prefill_ms=2, decode_ms=6, output_tokens=3, rows=4), 2.0),
    ],
)
async def test_a_cached_prompt_took_its_share_of_the_first_step(
    house: House, stats: StreamStats, prompt_ms: float
) -> None:
    """llama.cpp tells the time of the pass that reads the last token; it was 0."""
    house.says("abc", stats=stats)
    _, body = await ask(house, "/completion", {"prompt": "x"})
    told = body["timings"]
    assert (told["prompt_ms"], told["predicted_ms"]) == (prompt_ms, 6)
    assert told["prompt_per_second"] == pytest.approx(1000 * told["prompt_n"] / prompt_ms)


@pytest.mark.parametrize(
    ("given", "taken"),
    [([], {}), ([[65, -2.5], [66, False], [67, True]], {65: -2.5, 66: -100}), ({"65": 1}, {65: 1})],
)
async def test_biases_come_as_pairs_or_by_token(
    house: House, given: object, taken: dict[int, float]
) -> None:
    """Clients of llama.cpp send an empty list where there are none."""
    house.says("a")
    status, _ = await ask(house, "/completion", {"prompt": "x", "logit_bias": given})
    assert (status, house.engine.submitted[0].sampling.logit_bias) == (200, taken)
    status, said = await ask(house, "/completion", {"prompt": "x", "logit_bias": [[99999, 1]]})
    assert (status, "99999 is not in the vocabulary" in said["error"]["message"]) == (400, True)


async def test_none_asked_for_only_warms_the_cache(house: House) -> None:
    house.says("zzz")
    _, answer = await ask(house, "/completion", {"prompt": "x", "n_predict": 0})
    assert (answer["content"], answer["stop_type"]) == ("", "limit")
    assert house.engine.submitted[0].max_tokens == 1


async def test_the_text_comes_as_llama_cpps_events(house: House) -> None:
    house.says("ab")
    body = {"prompt": "x", "stream": True}
    async with house.tcp() as client, client.post("/completion", json=body) as answer:
        lines = (await answer.text()).strip().split("\n\n")
    events = [json.loads(line.removeprefix("data: ")) for line in lines]
    assert [(event["content"], event["stop"]) for event in events] == [
        ("a", False), ("b", False), ("", True)]  # fmt: skip
    assert events[-1]["timings"]["predicted_n"] == 2


async def test_a_grammar_holds_the_answer(house: House) -> None:
    house.says("no")
    await ask(house, "/completion", {"prompt": "x", "grammar": 'root ::= "yes" | "no"'})
    assert house.engine.submitted[0].grammar
    status, wrong = await ask(house, "/completion", {"prompt": "x", "json_schema": {"type": "x"}})
    assert (status, wrong["error"]["type"]) == (400, "invalid_request_error")
    assert "Invalid type: x" in wrong["error"]["message"]
