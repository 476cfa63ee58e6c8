"""What an answer is held to: ``response_format``, ``tools``, llama.cpp's ``json_schema`` and
``grammar``. What cannot be enforced is refused, with what is wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import msgspec

from atlasd.completion.ports import TextTokenizer
from atlasd.completion.tools import Calling, Tool, calling_of, grammar
from atlasd.server.errors import invalid
from atlasd.server.sampling import SamplingFields

if TYPE_CHECKING:
    from llguidance import LLTokenizer

WHITE_SPACE = r"( |\n[ \t]{0,32})?"
"""Between the parts of a JSON text: models that may write white space forever sometimes do."""

NAME = re.compile(r"[a-zA-Z0-9_.-]{1,64}")

Schema = Mapping[str, Any]


class JsonSchema(msgspec.Struct):
    """OpenAI's wrapping of a schema."""

    schema: dict[str, Any] | None = None
    name: str | None = None
    strict: bool | None = None


class ResponseFormat(msgspec.Struct):
    """``schema`` at the top is llama.cpp's way of saying it."""

    type: str = "text"
    json_schema: JsonSchema | None = None
    schema: dict[str, Any] | None = None


class HeldFields(SamplingFields, kw_only=True):
    """The keys that hold a whole answer to something. At most one may be used."""

    response_format: ResponseFormat | None = None
    json_schema: dict[str, Any] | None = None
    grammar: str | None = None

    @property
    def schema(self) -> Schema | None:
        """The JSON schema of the answer, if it has one."""
        if self.json_schema is not None:
            return self.json_schema
        wanted = self.response_format
        if wanted is None or wanted.type == "text":
            return None
        inner = wanted.json_schema.schema if wanted.json_schema else wanted.schema
        if wanted.type == "json_object":
            return {"type": "object"} if inner is None else inner
        if wanted.type != "json_schema":
            raise invalid(
                f"response_format.type: {wanted.type!r} is not known; text, json_object and"
                " json_schema are.",
                "response_format.type",
            )
        if inner is None:
            raise invalid("response_format.json_schema.schema is required.", "response_format")
        return inner

    def held(self) -> str:
        """The grammar of the answer as the engine takes it; empty where there is none."""
        if self.grammar and self.schema is not None:
            raise invalid("grammar cannot be combined with a JSON schema.", "grammar")
        if self.grammar:
            return of_gbnf(self.grammar)
        named = "json_schema" if self.json_schema is not None else "response_format"
        return "" if self.schema is None else of_schema(self.schema, named)


class Function(msgspec.Struct):
    name: str
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolField(msgspec.Struct):
    """A tool of a request; functions are the only kind that can be called here."""

    type: str = "function"
    function: Function | None = None


class NamedFunction(msgspec.Struct):
    name: str


class ToolChoice(msgspec.Struct):
    """One tool, by its name."""

    type: str = "function"
    function: NamedFunction | None = None


def offered(tools: Sequence[ToolField] | None) -> list[Tool]:
    """The tools of a request, checked."""
    found: list[Tool] = []
    for index, one in enumerate(tools or ()):
        param = f"tools[{index}]"
        if one.type != "function" or one.function is None:
            raise invalid(f"{param}: only functions can be called, not {one.type}.", param)
        if not NAME.fullmatch(one.function.name):
            raise invalid(
                f"{param}.function.name: letters, digits and _ . - only, 64 at most.", param
            )
        if one.function.name in [tool.name for tool in found]:
            raise invalid(f"{param}: {one.function.name} is given twice.", param)
        schema = {"type": "object"} | (one.function.parameters or {})
        held = _spaced(schema, lenient=not one.function.strict)
        of_schema(held, f"{param}.function.parameters")
        found.append(Tool(one.function.name, one.function.description or "", schema, held))
    return found


def chosen(tools: list[Tool], choice: str | ToolChoice | None) -> tuple[list[Tool], bool]:
    """The tools that may be called, and whether one has to be."""
    if isinstance(choice, ToolChoice):
        name = choice.function.name if choice.function else None
        named = [tool for tool in tools if tool.name == name]
        if not named:
            raise invalid(f"tool_choice: there is no function {name!r} in tools.", "tool_choice")
        return named, True
    if choice not in (None, "auto", "none", "required"):
        raise invalid(f"tool_choice: {choice!r} is not auto, none or required.", "tool_choice")
    if choice == "required" and not tools:
        raise invalid("tool_choice: required needs tools.", "tool_choice")
    return ([] if choice == "none" else tools), choice == "required"


def of_calls(
    tools: Sequence[Tool],
    tokenizer: TextTokenizer,
    *,
    required: bool,
    several: bool,
    content: Schema | None,
) -> tuple[Calling, str]:
    """How the model is to write calls, and the grammar of its answer."""
    calling = calling_of(tokenizer.chat_template)
    lark = grammar(
        tools,
        calling,
        tokenizer,
        required=required,
        several=several,
        content=None if content is None else _spaced(content),
    )
    from llguidance import LLMatcher

    return calling, LLMatcher.grammar_from_lark(lark)


def of_schema(schema: Schema, param: str) -> str:
    """A JSON schema as a grammar. Raises a 400 that says what is wrong with it."""
    from llguidance import LLMatcher

    compiled: str = LLMatcher.grammar_from_json_schema(json.dumps(_spaced(schema)))
    return _checked(compiled, param)


def of_gbnf(text: str) -> str:
    """llama.cpp's grammar format, or Lark, as a grammar."""
    from llguidance import LLMatcher
    from llguidance.gbnf_to_lark import any_to_lark

    try:
        lark = any_to_lark(text)
    except Exception as error:
        raise invalid(f"grammar: {error}.", "grammar") from None
    return _checked(LLMatcher.grammar_from_lark(lark), "grammar")


def _spaced(schema: Schema, *, lenient: bool = False) -> dict[str, Any]:
    """The schema with what llguidance is to know beside it; ``lenient`` lets keywords pass that
    it cannot enforce."""
    options = {"whitespace_pattern": WHITE_SPACE} | ({"lenient": True} if lenient else {})
    given = schema.get("x-guidance") or {}
    if not isinstance(given, Mapping):
        raise invalid("x-guidance must be an object.", "x-guidance", "invalid_schema")
    return {**schema, "x-guidance": options | dict(given)}


def _checked(compiled: str, param: str) -> str:
    from llguidance import LLMatcher

    failed, said = LLMatcher.validate_grammar_with_warnings(compiled)
    if failed:
        raise invalid(f"{param}: {said[0].strip()}", param, "invalid_schema")
    # What refers to nothing but itself is sound, and only following it shows that it has no text.
    matcher = LLMatcher(_bytes(), compiled, log_level=0)
    # What needs control tokens cannot be followed here; the engine will say if it is wrong.
    if not matcher.is_error() and matcher.compute_bitmask() and matcher.is_error():
        raise invalid(f"{param}: there is no text that it allows.", param, "invalid_schema")
    return compiled


@cache
def _bytes() -> LLTokenizer:
    """A vocabulary of single bytes: what has no text in it has none in any."""
    from llguidance import LLTokenizer

    return LLTokenizer("byte")
