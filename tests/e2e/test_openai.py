"""The real ``openai`` package, sync and async, streaming and not, against a real daemon."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Annotated, Any, Literal

import openai
import pydantic
import pytest
from openai.lib._parsing import type_to_response_format_param

from tests.e2e.running import Home, wait_until
from tests.e2e.tiny_model import write_tiny_model
from tests.served import byte_tokenizer

pytestmark = pytest.mark.e2e

MESSAGES: list[openai.types.chat.ChatCompletionMessageParam] = [
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Say something."},
]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Home]:
    folder = tmp_path_factory.mktemp("openai")
    made = Home.make(folder / "home", write_tiny_model(folder / "tiny"))
    made.start()
    yield made
    made.stop()


@pytest.fixture
def client(home: Home) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=f"http://127.0.0.1:{home.port}/v1", api_key=home.token,
                       max_retries=0) as made:  # fmt: skip
        yield made


def asynchronous(home: Home) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(
        base_url=f"http://127.0.0.1:{home.port}/v1", api_key=home.token, max_retries=0
    )


def test_a_chat_streamed_is_the_chat_unstreamed(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="tiny", messages=MESSAGES, max_tokens=24)
    text = whole.choices[0].message.content
    assert text
    assert whole.usage is not None
    assert (whole.usage.completion_tokens, whole.choices[0].finish_reason) == (24, "length")
    pieces, usage, reasons = [], None, []
    for chunk in client.chat.completions.create(
        model="tiny", messages=MESSAGES, max_tokens=24, stream=True,
        stream_options={"include_usage": True},
    ):  # fmt: skip
        usage = chunk.usage or usage
        for choice in chunk.choices:
            pieces.append(choice.delta.content or "")
            reasons.append(choice.finish_reason)
    assert "".join(pieces) == text
    assert [reason for reason in reasons if reason] == ["length"]
    assert usage is not None
    assert usage.completion_tokens == 24
    assert usage.prompt_tokens == whole.usage.prompt_tokens


async def test_the_async_client_gets_the_same(home: Home, client: openai.OpenAI) -> None:
    expected = client.chat.completions.create(model="t", messages=MESSAGES, max_tokens=12)
    async with asynchronous(home) as asked:
        whole = await asked.chat.completions.create(model="t", messages=MESSAGES, max_tokens=12)
        stream = await asked.completions.create(
            model="t", prompt="x = ", max_tokens=12, stream=True
        )
        pieces = [chunk.choices[0].text async for chunk in stream]
        text = await asked.completions.create(model="t", prompt="x = ", max_tokens=12)
    assert whole.choices[0].message.content == expected.choices[0].message.content
    assert "".join(pieces) == text.choices[0].text


def test_a_seed_repeats_and_drafting_changes_nothing(home: Home, client: openai.OpenAI) -> None:
    def ask(seed: int) -> list[str | None]:
        asked = client.chat.completions.create(
            model="t", messages=MESSAGES, max_tokens=40, temperature=1.0, seed=seed, n=2
        )
        return [choice.message.content for choice in asked.choices]

    first = ask(5)
    assert first[0] != first[1]
    assert ask(6) != first
    try:
        assert home.atlasd("drafting", "off").returncode == 0
        assert ask(5) == first
    finally:
        home.atlasd("drafting", "on")
    assert ask(5) == first


def test_a_completion_with_suffix_logprobs_echo_and_stop(client: openai.OpenAI) -> None:
    middle = client.completions.create(
        model="t", prompt="def f(", suffix="):\n    pass\n", max_tokens=8
    )
    assert middle.choices[0].text
    scored = client.completions.create(model="t", prompt="a", max_tokens=4, logprobs=3)
    told = scored.choices[0].logprobs
    assert told is not None
    assert told.tokens is not None
    assert told.token_logprobs is not None
    assert told.top_logprobs is not None
    assert "".join(told.tokens) == scored.choices[0].text
    assert all(0 >= score > -20 for score in told.token_logprobs)
    assert all(len(top) == 3 for top in told.top_logprobs)
    echoed = client.completions.create(model="t", prompt=["a", "b"], max_tokens=4, echo=True)
    assert [choice.text[0] for choice in echoed.choices] == ["a", "b"]
    text = client.completions.create(model="t", prompt="a", max_tokens=9).choices[0].text
    stopped = client.completions.create(model="t", prompt="a", max_tokens=9, stop=[text[3:5]])
    assert stopped.choices[0].text == text[: text.index(text[3:5])]
    assert stopped.choices[0].finish_reason == "stop"


def test_a_prediction_is_drafted_from_and_changes_nothing(client: openai.OpenAI) -> None:
    def ask(prediction: str | None) -> openai.types.chat.ChatCompletion:
        given = {"type": "content", "content": prediction} if prediction else openai.omit
        return client.chat.completions.create(
            model="t",
            messages=MESSAGES,
            max_tokens=40,
            prediction=given,  # type: ignore[arg-type]
        )

    plain = ask(None).choices[0].message.content
    assert plain is not None
    predicted = ask(plain[:30] + "@@" + plain[32:])
    assert predicted.choices[0].message.content == plain
    assert predicted.usage is not None
    details = predicted.usage.completion_tokens_details
    assert details is not None
    assert details.accepted_prediction_tokens is not None
    assert details.accepted_prediction_tokens >= 0


class City(pydantic.BaseModel):
    kind: Literal["town", "city"]
    rivers: Annotated[list[Literal["Iller", "Danube"]], pydantic.Field(max_length=2)]
    capital: bool


@pytest.mark.parametrize("seed", range(3))
def test_an_answer_is_parsed_into_the_type_it_was_held_to(
    home: Home, client: openai.OpenAI, seed: int
) -> None:
    def ask() -> openai.types.chat.ParsedChatCompletion[City]:
        return client.chat.completions.parse(
            model="t", messages=MESSAGES, max_tokens=400, response_format=City,
            temperature=1.0, seed=seed,
        )  # fmt: skip

    answer = ask()
    assert answer.choices[0].finish_reason == "stop"
    assert isinstance(answer.choices[0].message.parsed, City)
    plain = client.chat.completions.create(
        model="t", messages=MESSAGES, max_tokens=400, temperature=1.0, seed=seed,
        response_format=type_to_response_format_param(City),
        extra_body={"speculative.n_max": 0},
    )  # fmt: skip
    assert plain.choices[0].message.content == answer.choices[0].message.content
    assert plain.model_extra is not None
    assert plain.model_extra["timings"]["draft_n"] == 0


class Weather(pydantic.BaseModel):
    """Tells the weather."""

    town: Literal["Ulm", "Bern"]
    days: Literal[1, 2, 3]


@pytest.mark.parametrize("stream", [False, True])
def test_tools_are_called_with_arguments_of_their_type(client: openai.OpenAI, stream: bool) -> None:
    asked: dict[str, Any] = {
        "model": "t", "messages": MESSAGES, "max_tokens": 400, "temperature": 1.0, "seed": 4,
        "tools": [openai.pydantic_function_tool(Weather)], "tool_choice": "required",
        "parallel_tool_calls": False,
    }  # fmt: skip
    if stream:
        with client.chat.completions.stream(**asked) as events:
            message = events.get_final_completion().choices[0]
    else:
        message = client.chat.completions.parse(**asked).choices[0]
    assert message.finish_reason == "tool_calls"
    assert message.message.tool_calls is not None
    (call,) = message.message.tool_calls
    assert isinstance(call.function.parsed_arguments, Weather)


def test_a_schema_that_is_wrong_is_refused_with_what_is_wrong(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="Invalid type: strin"):
        client.chat.completions.create(
            model="t",
            messages=MESSAGES,
            response_format={
                "type": "json_schema",
                "json_schema": {"name": "x", "schema": {"type": "strin"}},
            },
        )


def test_models_are_listed_and_errors_are_the_packages_own(
    home: Home, client: openai.OpenAI
) -> None:
    (model,) = client.models.list().data
    assert client.models.retrieve(model.id).id == model.id
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("another")
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(model="t", prompt="x", temperature=-1)
    assert refused.value.param == "temperature"
    with pytest.raises(openai.BadRequestError) as long:
        client.completions.create(model="t", prompt="x" * 5000)
    assert long.value.code == "context_length_exceeded"
    stranger = client.with_options(api_key="wrong")
    with pytest.raises(openai.AuthenticationError):
        stranger.models.list()


@pytest.mark.parametrize("stream", [True, False])
def test_a_client_that_leaves_frees_the_engine(
    home: Home, client: openai.OpenAI, stream: bool
) -> None:
    before = home.status()["engine"]["counters"]
    # Many choices that nothing can draft and that do not end by themselves, so that a client leaves
    # before they are all there, on a quick machine and on a busy one.
    tokenizer = byte_tokenizer()
    never = {
        str(token): -100.0
        for token in range(tokenizer.vocab_size)
        if not tokenizer.token_bytes(token)
    }
    slow = {"model": "t", "messages": MESSAGES, "max_tokens": 1900, "n": 16, "temperature": 1.9}
    slow["logit_bias"] = never
    if stream:
        with client.chat.completions.create(**slow, stream=True) as events:
            next(iter(events))
    else:
        with pytest.raises(openai.APITimeoutError):
            client.with_options(timeout=0.1).chat.completions.create(**slow)

    def came_and_went() -> bool:
        engine = home.status()["engine"]
        return engine["counters"]["requests"] > before["requests"] and engine["streams"] == 0

    wait_until(came_and_went, patience=30)
    after = home.status()["engine"]["counters"]
    came = after["requests"] - before["requests"]
    assert after["cancelled"] - before["cancelled"] == came > 0
    assert after["output_tokens"] - before["output_tokens"] < 14 * 1900


def test_eight_streams_at_once_say_what_each_says_alone(client: openai.OpenAI) -> None:
    import concurrent.futures

    def ask(number: int) -> str:
        asked = client.completions.create(model="t", prompt=f"{number} = ", max_tokens=48)
        return asked.choices[0].text

    alone = [ask(number) for number in range(8)]
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert list(pool.map(ask, range(8))) == alone


def test_requests_while_the_model_is_away_wait_for_it(home: Home, client: openai.OpenAI) -> None:
    import os
    import signal

    pid = home.status()["engine_pid"]
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 30
    text = None
    while text is None and time.monotonic() < deadline:
        try:
            text = client.completions.create(model="t", prompt="x", max_tokens=4).choices[0].text
        except openai.InternalServerError:
            time.sleep(0.05)
    assert text
    assert home.status()["served"]["engine_restarts"] == 1
