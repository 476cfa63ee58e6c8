"""What a chat request says: its messages as templates want them, its tools, its limits."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from atlasd.completion.tools import Calling, Tool, knows_tools, with_tools_told
from atlasd.server.constraints import HeldFields, ToolChoice, ToolField, chosen, of_calls, offered
from atlasd.server.errors import invalid
from atlasd.server.sampling import Prediction, StreamOptions, TextPart, joined
from atlasd.server.services import Serving


class PastFunction(msgspec.Struct):
    name: str
    arguments: str | dict[str, Any] = ""


class PastCall(msgspec.Struct):
    """A call the model made earlier in the conversation."""

    function: PastFunction
    id: str = ""


class ChatMessage(msgspec.Struct):
    role: str
    content: str | list[TextPart] | None = None
    name: str | None = None
    tool_calls: list[PastCall] | None = None
    tool_call_id: str | None = None

    def plain(self, index: int) -> dict[str, Any]:
        """As chat templates expect it."""
        # Templates know the role by its older name.
        role = "system" if self.role == "developer" else self.role
        told: dict[str, Any] = {
            "role": role,
            "content": joined(self.content, f"messages[{index}].content"),
        }
        if self.tool_calls:
            told["tool_calls"] = [
                {
                    "id": call.id,
                    "type": "function",
                    "function": {
                        "name": call.function.name,
                        "arguments": _arguments(call.function.arguments),
                    },
                }
                for call in self.tool_calls
            ]
        for name in ("name", "tool_call_id"):
            if (value := getattr(self, name)) is not None:
                told[name] = value
        return told


class ChatRequest(HeldFields, kw_only=True):
    """What is read of the body. Other keys are ignored."""

    messages: Annotated[list[ChatMessage], Meta(min_length=1)]
    model: str | None = None
    max_tokens: Annotated[int, Meta(ge=-1)] | None = None
    max_completion_tokens: Annotated[int, Meta(ge=1)] | None = None
    n: int | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    logprobs: bool | None = None
    top_logprobs: Annotated[int, Meta(ge=0, le=20)] | None = None
    prediction: Prediction | None = None
    tools: list[ToolField] | None = None
    tool_choice: str | ToolChoice | None = None
    parallel_tool_calls: bool | None = None
    path: str | None = None
    """atlasd's own: the file that is talked about."""
    repository: str | None = None
    """The root it belongs to."""
    functions: list[Any] | None = None
    """OpenAI's former ``tools``: refused rather than ignored."""

    @property
    def wanted(self) -> int | None:
        """Tokens asked for; None: as many as fit."""
        limit = self.max_completion_tokens or self.max_tokens
        if limit == 0:
            raise invalid("max_tokens must be at least 1.", "max_tokens")
        return None if limit is None or limit < 0 else limit

    @property
    def alternatives(self) -> int:
        """As ``generate`` takes it: -1 for no log-probabilities."""
        if not self.logprobs:
            if self.top_logprobs:
                raise invalid("top_logprobs needs logprobs to be true.", "top_logprobs")
            return -1
        return self.top_logprobs or 0


@dataclass(frozen=True)
class Conversation:
    """A checked chat request for one model: its prompt, and what the answer is held to."""

    prompt: list[int]
    grammar: str
    calling: Calling | None
    """How the model writes calls; None where it may make none."""


def conversation(serving: Serving, asked: ChatRequest) -> Conversation:
    """Raises HTTPError 400 for what cannot be asked for."""
    if asked.functions:
        raise invalid("functions: say tools instead.", "functions", "not_supported")
    tools, required = chosen(offered(asked.tools), asked.tool_choice)
    grammar, calling = "", None
    if tools:
        if asked.grammar:
            raise invalid("grammar cannot be combined with tools.", "grammar")
        asked.held()
        calling, grammar = of_calls(
            tools,
            serving.tokenizer,
            required=required,
            several=asked.parallel_tool_calls is not False,
            content=asked.schema,
        )
    else:
        grammar = asked.held()
    messages = [message.plain(index) for index, message in enumerate(asked.messages)]
    return Conversation(_prompt(serving, messages, tools), grammar, calling)


def _prompt(
    serving: Serving, messages: Sequence[dict[str, Any]], tools: Sequence[Tool]
) -> list[int]:
    if knows_tools(serving.tokenizer.chat_template):
        told = [tool.told for tool in tools]
        return serving.chat.tokens(serving.tokenizer, messages, tools=told)
    return serving.chat.tokens(serving.tokenizer, with_tools_told(messages, tools))


def _arguments(given: str | dict[str, Any]) -> Any:
    """Templates print an object; clients send it as text."""
    if isinstance(given, dict):
        return given
    try:
        return json.loads(given) if given.strip() else {}
    except ValueError:
        return given
