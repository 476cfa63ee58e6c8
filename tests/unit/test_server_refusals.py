"""What OpenAI's APIs refuse, and a client that leaves."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import aiohttp
import msgspec
import pytest
from aiohttp import web

from atlasd.server import models
from tests.served import House, ask, eventually

LONG = "x = 1\n" * 20_000


@pytest.mark.parametrize(
    ("path", "body", "param", "says"),
    [
        ("/v1/completions", {"prompt": 3}, "prompt", "Expected str | array"),
        ("/v1/completions", {"prompt": "x", "temperature": -1}, "temperature", ">= 0"),
        ("/v1/completions", {"prompt": "x", "temperature": "hot"}, "temperature", "got str"),
        ("/v1/completions", {"prompt": "x", "n": 99}, "n", "1 to 16"),
        ("/v1/completions", {"prompt": "x", "max_tokens": 0}, "max_tokens", "at least 1"),
        ("/v1/completions", {"prompt": [1, "a"]}, "prompt", "cannot be mixed"),
        ("/v1/completions", {"prompt": [99999]}, "prompt", "99999"),
        ("/v1/completions", {"prompt": "x", "stop": [f"s{n}" for n in range(300)]}, "stop",
         "at most 256"),
        ("/v1/completions", {"prompt": "x", "best_of": 3}, "best_of", "not supported"),
        ("/v1/completions", {"prompt": "x", "logit_bias": {"9999": 1}}, "logit_bias", "9999"),
        ("/v1/completions", {"prompt": "x" * 5000}, "prompt", "5000 tokens"),
        ("/v1/chat/completions", {}, "messages", "messages is required"),
        ("/v1/chat/completions", {"messages": []}, "messages", "length >= 1"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}],
                                  "max_tokens": 0}, "max_tokens", "at least 1"),
        ("/v1/completions", {"prompt": "x", "repetition_penalty": 0}, "repetition_penalty", "> 0"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": [
            {"type": "image_url"}]}]}, "messages[0].content[0]", "only text"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}],
                                  "top_logprobs": 2}, "top_logprobs", "needs logprobs"),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}],
                                  "functions": [{"name": "f"}]}, "functions", "say tools"),
    ],
)  # fmt: skip
async def test_what_cannot_be_answered_is_refused_by_name(
    house: House, path: str, body: dict[str, Any], param: str, says: str
) -> None:
    status, answer = await ask(house, path, body)
    assert status == 400
    error = answer["error"]
    assert error["type"] == "invalid_request_error"
    assert error["param"] == param
    assert says in error["message"]
    assert set(error) == {"message", "type", "param", "code"}
    assert not house.engine.submitted


@pytest.mark.parametrize("key", ["top_k", "seed", "max_tokens"])
async def test_numbers_too_large_to_be_sent_to_the_engine_are_cut(house: House, key: str) -> None:
    house.says("y")
    status, _ = await ask(house, "/v1/completions", {"prompt": "x", "temperature": 1, key: 10**30})
    assert status == 200
    assert msgspec.msgpack.encode(house.engine.submitted[0])


async def test_bodies_that_are_not_json_are_refused(house: House) -> None:
    headers = {"Content-Type": "application/json"}
    async with house.tcp() as client:
        deep = b'{"segments":' + b"[" * 100_000
        for raw in (b"", b"{", b"\xff", b"[" * 100_000, b'"text"', deep):
            async with client.post("/v1/completions", data=raw, headers=headers) as answer:
                assert answer.status == 400, raw[:9]
                assert (await answer.json())["error"]["message"]


@pytest.mark.parametrize(
    ("schema", "says"),
    [({"$ref": "#"}, "there is no text"), ({"type": "object", "x-guidance": "x"}, "an object")],
)
async def test_a_schema_that_nothing_fits_is_refused(
    house: House, schema: dict[str, Any], says: str
) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "n", "schema": schema}}
    body = {"messages": [{"role": "user", "content": "x"}], "response_format": form}
    status, answer = await ask(house, "/v1/chat/completions", body)
    assert (status, answer["error"]["code"]) == (400, "invalid_schema")
    assert says in answer["error"]["message"]
    assert not house.engine.submitted


async def test_a_body_that_is_not_encoded_as_it_says_is_refused(house: House) -> None:
    headers = {"Content-Type": "application/json", "Content-Encoding": "gzip"}
    async with house.tcp() as client:
        plain = client.post("/v1/completions", data=b'{"prompt": "x"}', headers=headers)
        async with plain as answer:
            assert (answer.status, (await answer.json())["error"]["code"]) == (400, "bad_body")


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_cancels_its_stream(house: House, stream: bool) -> None:
    house.says("abc", hold=True)
    async with house.tcp() as client:
        body = {"messages": [{"role": "user", "content": "x"}], "stream": stream}
        asking = asyncio.create_task(client.post("/v1/chat/completions", json=body))
        await eventually(lambda: bool(house.engine.submitted))
        await asyncio.sleep(0.05)
        if asking.done():
            asking.result().close()
        asking.cancel()
        await eventually(lambda: bool(house.engine.cancelled))
    assert house.engine.cancelled == [house.engine.submitted[0].stream]
    await eventually(lambda: house.daemon.supervisor.in_use == 0)
    assert house.daemon.meter.cancelled == 1


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/completions", {"prompt": LONG}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": LONG}]}),
        ("/completion", {"prompt": LONG}),
        ("/api/generate", {"prompt": LONG}),
        ("/api/chat", {"messages": [{"role": "user", "content": LONG}]}),
        ("/tokenize", {"content": LONG}),
        ("/v1/completions", {"prompt": "x", "prediction": {"content": LONG}}),
        ("/v1/completions", {"prompt": "x", "suffix": "y", "prediction": {"content": LONG}}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": "x"}],
                                  "prediction": {"content": LONG}}),
    ],
)  # fmt: skip
async def test_nobody_waits_while_a_long_prompt_is_tokenised(
    house: House, monkeypatch: pytest.MonkeyPatch, path: str, body: dict[str, Any]
) -> None:
    tokenising: list[threading.Thread] = []
    encode = type(house.tokenizer).encode

    def noted(self: Any, text: str, special: bool = False) -> list[int]:
        if len(text) >= len(LONG):
            tokenising.append(threading.current_thread())
        return encode(self, text, special)

    monkeypatch.setattr(type(house.tokenizer), "encode", noted)
    house.says("x")
    status, _ = await ask(house, path, body)
    assert status == (200 if path == "/tokenize" or "prediction" in body else 400)
    assert tokenising
    assert threading.main_thread() not in tokenising


async def test_a_client_that_leaves_before_its_answer_begins_is_no_fault(
    house: House, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def left(request: web.Request) -> web.StreamResponse:
        assert request.transport is not None
        request.transport.abort()
        response = web.StreamResponse()
        await response.prepare(request)
        return response

    monkeypatch.setattr(models, "list_models", left)
    async with house.tcp() as client:
        with pytest.raises(aiohttp.ServerDisconnectedError):
            await client.get("/v1/models")
    await eventually(lambda: house.daemon.meter.requests["/v1/models", 499] > 0)
    assert caplog.records == []


async def test_a_broken_pipe_of_our_own_is_a_fault(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def failing(request: web.Request) -> web.StreamResponse:
        raise BrokenPipeError("not the client's")

    monkeypatch.setattr(models, "list_models", failing)
    status, body = await ask(house, "/v1/models")
    assert (status, body["error"]["code"]) == (500, "internal_error")
