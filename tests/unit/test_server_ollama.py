"""Ollama's API, asked by the real ``ollama`` package."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio

from atlasd.engine.protocol import StreamStats
from tests.served import House, ask, served

ollama = pytest.importorskip("ollama", reason="the ollama package is not installed")

MESSAGES = [{"role": "user", "content": "hey"}]
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Ulm"}}\n</tool_call>'


@pytest_asyncio.fixture
async def client(house: House) -> AsyncIterator[Any]:
    # The path, because most clients of Ollama have no place for a key.
    made = ollama.AsyncClient(host=f"{house.base}/t/{house.token}")
    yield made
    await made._client.aclose()


async def test_the_model_is_listed_shown_and_running(house: House, client: Any) -> None:
    listed = await client.list()
    assert [model.model for model in listed.models] == ["tiny"]
    shown = await client.show("tiny")
    assert set(shown.capabilities) == {"completion", "insert", "tools"}
    assert ".Suffix" in shown.template
    assert [model.name for model in (await client.ps()).models] == ["tiny"]
    async with house.tcp() as asked:
        assert await (await asked.get("/")).text() == "Ollama is running"
        assert (await asked.head("/")).status == 200
        assert "version" in await (await asked.get("/api/version")).json()


@pytest.mark.parametrize("stream", [False, True])
async def test_a_prompt_is_answered(house: House, client: Any, stream: bool) -> None:
    house.says("Hello", stats=StreamStats(prompt_tokens=9, output_tokens=5, decode_ms=2.0))
    options = {"num_predict": 30, "temperature": 0.5, "seed": 3, "stop": ["!"]}
    asked = await client.generate("tiny", "hey", system="Be brief.", options=options, stream=stream)
    parts = [part async for part in asked] if stream else [asked]
    assert "".join(part.response for part in parts) == "Hello"
    last = parts[-1]
    assert (last.done, last.done_reason, last.eval_count) == (True, "stop", 5)
    assert (last.prompt_eval_count, last.eval_duration) == (9, 2_000_000)
    assert house.prompt().startswith(
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nhey"
    )
    submit = house.engine.submitted[0]
    assert (submit.max_tokens, submit.sampling.temperature, submit.sampling.seed) == (30, 0.5, 3)


async def test_the_middle_is_filled_and_a_raw_prompt_is_left_alone(
    house: House, client: Any
) -> None:
    house.says("x + y")
    filled = await client.generate("tiny", "return ", suffix="\n")
    assert filled.response == "x + y"
    assert house.prompt().endswith("<|fim_middle|>")
    house.says("z")
    await client.generate("tiny", "<|fim_prefix|>a", raw=True)
    assert house.prompt() == "<|fim_prefix|>a"


async def test_no_repeat_penalty_is_said_with_zero(house: House, client: Any) -> None:
    house.says("z")
    await client.generate("tiny", "hey", options={"repeat_penalty": 0})
    assert house.engine.submitted[0].sampling.repetition_penalty == 1.0


async def test_whole_numbers_may_have_a_point(house: House) -> None:
    house.says("z")
    options = {"num_predict": 7.0, "seed": 3.0, "top_k": 5.0, "temperature": 1, "num_ctx": 4e3,
               "logit_bias": {"5": 1}}  # fmt: skip
    body = {"prompt": "hey", "stream": False, "options": options}
    assert (await ask(house, "/api/generate", body))[0] == 200
    submit = house.engine.submitted[0]
    assert (submit.max_tokens, submit.sampling.seed, submit.sampling.top_k) == (7, 3, 5)
    assert submit.sampling.logit_bias == {5: 1.0}
    status, answer = await ask(house, "/api/generate", {**body, "options": {"seed": "three"}})
    assert (status, answer["error"]) == (400, "options.seed: Expected int | null, got str.")


@pytest.mark.parametrize("unbounded", [0, -1, -2])
async def test_as_many_tokens_as_fit_are_asked_for_with_zero_or_less(
    house: House, client: Any, unbounded: int
) -> None:
    house.says("z")
    await client.generate("tiny", "hey", raw=True, options={"num_predict": unbounded})
    assert house.engine.submitted[0].max_tokens == 4096 - 3


async def test_asking_for_nothing_loads_the_model(house: House, client: Any) -> None:
    loaded = await client.generate("tiny")
    assert (loaded.done, loaded.done_reason, loaded.response) == (True, "load", "")
    loaded = await client.chat("tiny")
    assert (loaded.done, loaded.done_reason, loaded.message.content) == (True, "load", "")
    assert not house.engine.submitted


@pytest.mark.parametrize("stream", [False, True])
async def test_a_conversation_is_answered(house: House, client: Any, stream: bool) -> None:
    house.says("Hi é")
    asked = await client.chat("tiny", MESSAGES, stream=stream)
    parts = [part async for part in asked] if stream else [asked]
    assert "".join(part.message.content for part in parts) == "Hi é"
    assert parts[-1].done


@pytest.mark.parametrize("stream", [False, True])
async def test_tools_are_called(house: House, client: Any, stream: bool) -> None:
    def weather(city: str) -> str:
        """Tell the weather.

        Args:
            city: The city's name.
        """
        return city

    house.says(f"Well. {CALL}")
    asked = await client.chat("tiny", MESSAGES, tools=[weather], stream=stream)
    parts = [part async for part in asked] if stream else [asked]
    assert "".join(part.message.content for part in parts) == "Well."
    (call,) = [call for part in parts for call in part.message.tool_calls or ()]
    assert (call.function.name, call.function.arguments) == ("weather", {"city": "Ulm"})
    assert house.engine.submitted[0].grammar
    house.says("It rains.")
    result = {"role": "tool", "content": "rain", "tool_name": "weather"}
    past = {"role": "assistant", "content": "", "tool_calls": [call.model_dump()]}
    await client.chat("tiny", [*MESSAGES, past, result], tools=[weather])
    assert CALL in house.prompt()
    assert "rain" in house.prompt()


@pytest.mark.parametrize("format_", ["json", {"type": "object", "properties": {}}])
async def test_a_format_holds_the_answer(house: House, client: Any, format_: Any) -> None:
    for asking in (client.generate("tiny", "hey", format=format_),
                   client.chat("tiny", MESSAGES, format=format_)):  # fmt: skip
        house.says("{}")
        await asking
        assert house.engine.submitted[-1].grammar


async def test_errors_are_the_packages_own(house: House, client: Any) -> None:
    with pytest.raises(ollama.ResponseError, match="Invalid type: x") as refused:
        await client.chat("tiny", MESSAGES, format={"type": "x"})
    assert refused.value.status_code == 400
    house.says("ab", error="out of memory")
    with pytest.raises(ollama.ResponseError, match="out of memory"):
        async for _ in await client.chat("tiny", MESSAGES, stream=True):
            pass


async def test_a_null_is_as_good_as_no_key(house: House) -> None:
    body = {"model": None, "prompt": "hey", "suffix": None, "system": None, "raw": None,
            "options": None, "format": None, "stream": False, "images": None}  # fmt: skip
    house.says("ab")
    status, answer = await ask(house, "/api/generate", body)
    assert (status, answer["response"]) == (200, "ab")
    house.says("ab")
    async with house.tcp() as client:
        asked = {"messages": MESSAGES, "stream": None, "tools": None, "options": None}
        async with client.post("/api/chat", json=asked) as streamed:
            assert streamed.content_type == "application/x-ndjson"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/api/generate", {"prompt": "What is this?", "images": ["aGVsbG8="]}),
        ("/api/chat", {"messages": [{**MESSAGES[0], "images": ["aGVsbG8="]}]}),
    ],
)
async def test_images_are_refused_rather_than_ignored(
    house: House, path: str, body: dict[str, Any]
) -> None:
    status, answer = await ask(house, path, body)
    assert status == 400
    assert "text only" in answer["error"]


@pytest.mark.parametrize(
    ("idle_minutes", "days"), [(30, 1 / 48), (0, 36_500), (1e300, 36_500), (float("inf"), 36_500)]
)
async def test_it_is_told_when_the_model_will_be_unloaded(
    tmp_path: Path, idle_minutes: float, days: float
) -> None:
    async with served(tmp_path, options={"engine.idle_minutes": idle_minutes}) as house:
        status, body = await ask(house, "/api/ps")
    assert status == 200
    left = datetime.fromisoformat(body["models"][0]["expires_at"]) - datetime.now(UTC)
    assert left / timedelta(days=days) == pytest.approx(1, abs=0.05)


async def test_a_model_has_a_digest_that_clients_can_cut(house: House) -> None:
    """``ollama list`` prints its first twelve characters and fails where there are fewer."""
    _, listed = await ask(house, "/api/tags")
    _, running = await ask(house, "/api/ps")
    (digest,) = {body["models"][0]["digest"] for body in (listed, running)}
    assert re.fullmatch("[0-9a-f]{64}", digest)
