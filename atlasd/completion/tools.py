"""Tools in a conversation: how a model is told of them, and the grammar of its calls.

Two ways of calling cover the models that are served: Hermes' (Qwen and most others), a JSON object
between markers, and Llama 3's, a bare one. What a model writes is held to the grammar, so a call
always names a tool that was given and its arguments fit that tool's schema.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from atlasd.completion.ports import TextTokenizer


@dataclass(frozen=True)
class Tool:
    """A function the model may call; ``parameters`` is the JSON schema that it is shown, ``held``
    the one that calls are held to."""

    name: str
    description: str
    parameters: Mapping[str, Any]
    held: Mapping[str, Any]

    @property
    def told(self) -> dict[str, Any]:
        """As chat templates expect it."""
        function = {
            "name": self.name,
            "description": self.description,
            "parameters": dict(self.parameters),
        }
        return {"type": "function", "function": function}


@dataclass(frozen=True)
class Calling:
    """How a model writes calls: ``opening {"name": …, "key": …} closing``."""

    opening: str
    key: str
    closing: str
    several: bool


HERMES = Calling("<tool_call>", "arguments", "</tool_call>", several=True)
LLAMA = Calling("", "parameters", "", several=False)


def calling_of(template: str | None) -> Calling:
    """The way that a chat template shows its model."""
    shown = template or ""
    return LLAMA if "tools" in shown and '"parameters"' in shown and not _hermes(shown) else HERMES


def _hermes(template: str) -> bool:
    return HERMES.opening in template


def header(calling: Calling, name: str) -> str:
    """What stands before a call's arguments."""
    return f'{{"name": {json.dumps(name)}, {json.dumps(calling.key)}: '


def grammar(
    tools: Sequence[Tool],
    calling: Calling,
    tokenizer: TextTokenizer,
    *,
    required: bool,
    several: bool,
    content: Mapping[str, Any] | None = None,
) -> str:
    """The answer's grammar in llguidance's Lark: calls, and text unless a call is ``required``.

    ``content`` is the JSON schema that a text is held to. Where the marker is a token of its own
    only that token opens a call; else the characters do.
    """
    calls = [
        f'call_{index}: {_quoted(header(calling, tool.name))} %json {json.dumps(tool.held)} "}}"'
        for index, tool in enumerate(tools)
    ]
    any_call = " | ".join(f"call_{index}" for index in range(len(tools)))
    opening = _marker(calling.opening, tokenizer)
    gap, closing = ('"\\n"', _marker(calling.closing, tokenizer)) if calling.opening else ("", "")
    more = several and calling.several
    following = f'("\\n" {opening} body)*' if more else ""
    rules = [f"body: {gap} ({any_call}) {gap} {closing}", *calls]
    if content is not None and not required:
        rules += ["start: content | calls", f"content: %json {json.dumps(content)}"]
    elif required:
        rules.append("start: calls")
    elif not calling.opening:
        rules += ["start: CONTENT? | calls", "CONTENT: /[^{](?s:.*)/"]
    elif opening.startswith("<"):
        rules += ["start: CONTENT? calls?", "CONTENT: /(?s:.+)/"]
    else:
        inside = f"(?s:.*){calling.opening}"
        rules += [
            f"start: CONTENT | lead body {following}",
            f"CONTENT: /(?s:.*)/ & ~/{inside}(?s:.*)/",
            f"lead[lazy]: /{inside}/",
        ]
    rules.append(f"calls: {opening} body {following}")
    return "\n".join(rules)


def _marker(text: str, tokenizer: TextTokenizer) -> str:
    """A marker as the grammar spells it: the token, if it is one whose text is seen."""
    token = tokenizer.token_id(text) if text else None
    if token is not None and tokenizer.token_bytes(token) == text.encode():
        return text
    return _quoted(text) if text else ""


def _quoted(text: str) -> str:
    return json.dumps(text)


def knows_tools(template: str | None) -> bool:
    """Whether a chat template has a place for tools."""
    return "tools" in (template or "")


def with_tools_told(
    messages: Sequence[Mapping[str, Any]], tools: Sequence[Tool]
) -> list[dict[str, Any]]:
    """A conversation for a template that knows nothing of tools: they are told in the system
    message, and past calls and their results become text, in Hermes' words."""
    plain = [_as_text(message) for message in messages]
    if not tools:
        return plain
    told = "\n".join(json.dumps(tool.told, ensure_ascii=False) for tool in tools)
    system = PROMPT.replace("TOOLS", told)
    if plain and plain[0]["role"] == "system":
        first = {**plain[0], "content": f"{plain[0].get('content') or ''}\n\n{system}"}
        return [first, *plain[1:]]
    return [{"role": "system", "content": system}, *plain]


PROMPT = """# Tools

You may call one or more functions to assist with the user query.

You are provided with function signatures within <tools></tools> XML tags:
<tools>
TOOLS
</tools>

For each function call, return a json object with function name and arguments within \
<tool_call></tool_call> XML tags:
<tool_call>
{"name": <function-name>, "arguments": <args-json-object>}
</tool_call>"""


def _as_text(message: Mapping[str, Any]) -> dict[str, Any]:
    content = message.get("content") or ""
    if message["role"] == "tool":
        return {"role": "user", "content": f"<tool_response>\n{content}\n</tool_response>"}
    said = [content] if content else []
    for call in message.get("tool_calls") or ():
        function = {name: call["function"][name] for name in ("name", "arguments")}
        text = json.dumps(function, ensure_ascii=False)
        said.append(f"{HERMES.opening}\n{text}\n{HERMES.closing}")
    return {"role": message["role"], "content": "\n".join(said)}
