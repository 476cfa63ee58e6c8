"""Answers held to a schema, and tools: what the engine is asked, what clients are told."""

from __future__ import annotations

import json
from typing import Any

import pytest
from llguidance import LLMatcher, LLTokenizer

from atlasd.completion.calls import Argued, Called, CallReader, Said
from atlasd.completion.tools import HERMES, LLAMA, calling_of
from tests.served import House, byte_tokenizer

CITY = {
    "type": "object",
    "properties": {"city": {"type": "string"}},
    "required": ["city"],
    "additionalProperties": False,
}
WEATHER = {"type": "function", "function": {"name": "weather", "description": "It rains.",
                                            "parameters": CITY}}  # fmt: skip
CLOCK = {"type": "function", "function": {"name": "clock"}}
ASKED = {"messages": [{"role": "user", "content": "hey"}]}
CALL = '<tool_call>\n{"name": "weather", "arguments": {"city": "Ulm"}}\n</tool_call>'
CLOCKED = '\n<tool_call>\n{"name": "clock", "arguments": { }}\n</tool_call>'


async def ask(house: House, body: dict[str, Any], path: str = "/v1/chat/completions") -> Any:
    async with house.tcp() as client, client.post(path, json=body) as answer:
        return answer.status, await answer.json()


def allows(house: House, text: str, index: int = -1) -> bool:
    """Whether the grammar that the engine was given lets this text be an answer."""
    tokenizer = byte_tokenizer()
    vocabulary = LLTokenizer(tokenizer.serialized(), eos_token=list(tokenizer.eos_ids))
    matcher = LLMatcher(vocabulary, house.engine.submitted[index].grammar, log_level=0)
    tokens = tokenizer.encode(text)
    return matcher.try_consume_tokens(tokens) == len(tokens) and matcher.is_accepting()


@pytest.mark.parametrize(
    ("format_", "right", "wrong"),
    [
        ({"type": "json_object"}, '{"a": [1]}', "[1]"),
        ({"type": "json_object", "schema": CITY}, '{"city": "Ulm"}', '{"a": 1}'),
        ({"type": "json_schema", "json_schema": {"name": "c", "schema": CITY, "strict": True}},
         '{\n    "city": "Ulm"\n}', '{"city": 3}'),
        ({"type": "json_schema", "schema": CITY}, '{"city":"Ulm"}', "{}"),
    ],
)  # fmt: skip
async def test_an_answer_is_held_to_its_format(
    house: House, format_: dict[str, Any], right: str, wrong: str
) -> None:
    house.says(right)
    status, body = await ask(house, {**ASKED, "response_format": format_})
    assert (status, body["choices"][0]["message"]["content"]) == (200, right)
    assert allows(house, right)
    assert not allows(house, wrong)
    assert not allows(house, right[:-1])


@pytest.mark.parametrize("path", ["/v1/completions", "/v1/chat/completions"])
async def test_llama_cpps_schema_and_grammar_are_heeded(house: House, path: str) -> None:
    asked = {"prompt": "x"} if path == "/v1/completions" else ASKED
    house.says('{"city": "Ulm"}')
    await ask(house, {**asked, "json_schema": CITY}, path)
    assert allows(house, '{"city": "Ulm"}')
    house.says("no 12")
    await ask(house, {**asked, "grammar": 'root ::= ("yes" | "no") " " [0-9]+'}, path)
    assert allows(house, "no 12")
    assert not allows(house, "maybe 12")


async def test_without_any_of_it_nothing_is_held(house: House) -> None:
    for more in ({}, {"response_format": {"type": "text"}}, {"tools": []},
                 {"tools": [WEATHER], "tool_choice": "none"}):  # fmt: skip
        house.says("x")
        status, _ = await ask(house, {**ASKED, **more})
        assert status == 200
        assert house.engine.submitted[-1].grammar == ""


@pytest.mark.parametrize(
    ("body", "param", "says"),
    [
        ({"response_format": {"type": "xml"}}, "response_format.type", "'xml' is not known"),
        ({"response_format": {"type": "json_schema"}}, "response_format", "is required"),
        ({"response_format": {"type": "json_schema", "json_schema": {
            "name": "x", "schema": {"type": "strin"}}}}, "response_format",
         "Invalid type: strin"),
        ({"json_schema": {"type": "array", "uniqueItems": True}}, "json_schema", "uniqueItems"),
        ({"json_schema": {"$ref": "#/x"}}, "json_schema", "does not exist"),
        ({"grammar": "root ::= (", "x": 1}, "grammar", "grammar"),
        ({"grammar": 'root ::= "a"', "json_schema": {}}, "grammar", "cannot be combined"),
        ({"tools": [{"type": "web_search"}]}, "tools[0]", "only functions"),
        ({"tools": [{"type": "function", "function": {"name": "no spaces"}}]}, "tools[0]",
         "letters"),
        ({"tools": [WEATHER, WEATHER]}, "tools[1]", "twice"),
        ({"tools": [{"type": "function", "function": {
            "name": "f", "parameters": {"properties": {"a": {"type": "no"}}}}}]},
         "tools[0].function.parameters", "Invalid type: no"),
        ({"tools": [{"type": "function", "function": {"name": "f", "strict": True, "parameters": {
            "properties": {"a": {"type": "array", "uniqueItems": True}}}}}]},
         "tools[0].function.parameters", "uniqueItems"),
        ({"tool_choice": "required"}, "tool_choice", "needs tools"),
        ({"tools": [WEATHER], "tool_choice": "always"}, "tool_choice", "'always'"),
        ({"tools": [WEATHER], "tool_choice": {"type": "function", "function": {"name": "g"}}},
         "tool_choice", "no function 'g'"),
        ({"tools": [WEATHER], "grammar": 'root ::= "a"'}, "grammar", "with tools"),
    ],
)  # fmt: skip
async def test_what_cannot_be_held_to_is_refused_and_says_what_is_wrong(
    house: House, body: dict[str, Any], param: str, says: str
) -> None:
    status, answer = await ask(house, {**ASKED, **body})
    assert status == 400, answer
    assert answer["error"]["param"] == param
    assert says in answer["error"]["message"]
    assert not house.engine.submitted


async def test_keywords_that_cannot_be_enforced_pass_in_tools_that_are_not_strict(
    house: House,
) -> None:
    schema = {"properties": {"a": {"type": "array", "uniqueItems": True}}}
    house.says("x")
    tool = {"type": "function", "function": {"name": "f", "parameters": schema}}
    status, _ = await ask(house, {**ASKED, "tools": [tool]})
    assert status == 200


async def test_calls_are_told_as_openai_does(house: House) -> None:
    house.says(f"Let me see. {CALL}{CLOCKED}")
    status, body = await ask(house, {**ASKED, "tools": [WEATHER, CLOCK]})
    assert status == 200
    choice = body["choices"][0]
    assert choice["finish_reason"] == "tool_calls"
    assert choice["message"]["content"] == "Let me see."
    first, second = choice["message"]["tool_calls"]
    assert first["function"] == {"name": "weather", "arguments": '{"city": "Ulm"}'}
    assert second["function"] == {"name": "clock", "arguments": "{ }"}
    assert first["type"] == "function"
    assert first["id"].startswith("call_")
    assert first["id"] != second["id"]
    assert allows(house, f"Let me see. {CALL}{CLOCKED}")
    assert allows(house, "Just text, and <b>.")
    assert not allows(house, CALL.replace("weather", "wether"))
    assert not allows(house, CALL.replace('"Ulm"', "3"))


@pytest.mark.parametrize("pieces", [1, 3, 500])
async def test_every_token_of_calls_is_scored_once_when_streamed(house: House, pieces: int) -> None:
    """A call's pieces and the tokens that spell it do not come one for one."""
    said = f"I look. {CALL}{CLOCKED}"
    house.says(said, pieces=pieces, logprobs=True)
    body = {**ASKED, "tools": [WEATHER, CLOCK], "stream": True, "logprobs": True}
    async with house.tcp() as client, client.post("/v1/chat/completions", json=body) as answer:
        lines = (await answer.text()).split("\n\n")
    events = [json.loads(line[6:]) for line in lines if line.startswith("data: {")]
    scored = [event["choices"][0]["logprobs"] for event in events]
    assert "".join(one["token"] for told in scored if told for one in told["content"]) == said


@pytest.mark.parametrize("pieces", [1, 7, 1000])
async def test_calls_come_in_pieces_when_streamed(house: House, pieces: int) -> None:
    house.says(f"Hm.\n{CALL}{CLOCKED}", pieces=pieces)
    body = {**ASKED, "tools": [WEATHER, CLOCK], "stream": True}
    async with house.tcp() as client, client.post("/v1/chat/completions", json=body) as answer:
        lines = (await answer.text()).split("\n\n")
    events = [
        json.loads(line.removeprefix("data: ")) for line in lines if line.startswith("data: {")
    ]
    deltas = [event["choices"][0]["delta"] for event in events]
    assert "".join(delta.get("content", "") for delta in deltas) == "Hm."
    calls = [call for delta in deltas for call in delta.get("tool_calls", ())]
    begun = [call for call in calls if "id" in call]
    assert [call["function"] for call in begun] == [
        {"name": "weather", "arguments": ""}, {"name": "clock", "arguments": ""}]  # fmt: skip
    for index, arguments in enumerate(('{"city": "Ulm"}', "{ }")):
        mine = [call for call in calls if call["index"] == index]
        assert "".join(call["function"]["arguments"] for call in mine) == arguments
    assert events[-1]["choices"][0]["finish_reason"] == "tool_calls"


async def test_a_call_can_be_required_named_and_single(house: House) -> None:
    house.says(CALL)
    await ask(house, {**ASKED, "tools": [WEATHER, CLOCK], "tool_choice": "required"})
    assert allows(house, CALL + CLOCKED)
    assert not allows(house, "text")
    house.says(CALL)
    named = {"type": "function", "function": {"name": "weather"}}
    await ask(house, {**ASKED, "tools": [WEATHER, CLOCK], "tool_choice": named})
    assert allows(house, CALL)
    assert not allows(house, CLOCKED.strip())
    house.says(CALL)
    await ask(house, {**ASKED, "tools": [WEATHER, CLOCK], "parallel_tool_calls": False})
    assert allows(house, CALL)
    assert not allows(house, CALL + CLOCKED)


async def test_a_call_that_was_cut_says_so(house: House) -> None:
    house.says(CALL[:50], reason="length")
    _, body = await ask(house, {**ASKED, "tools": [WEATHER]})
    choice = body["choices"][0]
    assert choice["finish_reason"] == "length"
    assert CALL[:50].endswith(choice["message"]["tool_calls"][0]["function"]["arguments"])


async def test_a_model_whose_template_knows_no_tools_is_told_of_them_in_words(
    house: House,
) -> None:
    house.says("It rains.")
    messages = [
        {"role": "developer", "content": "Be brief."},
        {"role": "user", "content": "\nhey"},
        {"role": "assistant", "content": None, "tool_calls": [
            {"id": "c1", "type": "function", "function": {
                "name": "weather", "arguments": '{"city": "Ulm"}'}}]},
        {"role": "tool", "tool_call_id": "c1", "content": "rain"},
    ]  # fmt: skip
    status, _ = await ask(house, {"messages": messages, "tools": [WEATHER]})
    assert status == 200
    prompt = house.prompt()
    assert prompt.startswith("<|im_start|>system\nBe brief.\n\n# Tools")
    assert '"name": "weather", "description": "It rains."' in prompt
    assert "x-guidance" not in prompt
    assert "<|im_start|>user\n\nhey<|im_end|>" in prompt
    assert f"<|im_start|>assistant\n{CALL}<|im_end|>" in prompt
    assert "<tool_response>\nrain\n</tool_response>" in prompt


READ: list[tuple[Any, str, list[Any]]] = [
    (HERMES, "a < b", [Said("a < b")]),
    (HERMES, f"a{CALL}", [Said("a"), ("weather", '{"city": "Ulm"}')]),
    (HERMES, '<tool_call>\n{"name": "f", "arguments": {"a": "}\\"]", "b": [{}]}}\n</tool_call>',
     [("f", '{"a": "}\\"]", "b": [{}]}')]),
    (LLAMA, '{"name": "f", "parameters": {"a": 1}}', [("f", '{"a": 1}')]),
    (LLAMA, "say {x}", [Said("say {x}")]),
    (LLAMA, '{"a": 1}', [Said('{"a": 1}')]),
]  # fmt: skip


@pytest.mark.parametrize("cut", [1, 2, 5, 1000])
@pytest.mark.parametrize(("calling", "text", "expected"), READ)
def test_an_answer_is_read_however_it_is_cut(
    calling: Any, text: str, expected: list[Any], cut: int
) -> None:
    reader = CallReader(calling)
    pieces = [p for at in range(0, len(text), cut) for p in reader.feed(text[at : at + cut])]
    pieces += reader.flush()
    said = "".join(piece.text for piece in pieces if isinstance(piece, Said))
    found: list[Any] = [Said(said)] if said else []
    for call in pieces:
        if isinstance(call, Called):
            mine = [p.text for p in pieces if isinstance(p, Argued) and p.index == call.index]
            found.append((call.name, "".join(mine)))
    assert found == expected


def test_the_template_tells_how_a_model_calls() -> None:
    assert calling_of(None) == HERMES
    assert calling_of("{{ tools }}<tool_call>") == HERMES
    assert calling_of('{% if tools %}{"name": f, "parameters": x}{% endif %}') == LLAMA
