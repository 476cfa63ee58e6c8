"""Chat messages become a prompt through the model's own jinja2 template, in the sandbox and with
the functions that transformers gives such templates."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import lru_cache
from typing import Any, NoReturn

import jinja2
import jinja2.ext
import jinja2.sandbox
from jinja2 import nodes
from jinja2.parser import Parser

from atlasd.completion.ports import TextTokenizer
from atlasd.errors import RequestError

Message = Mapping[str, Any]

PLAIN = (
    "{%- for message in messages -%}"
    "{{ '### ' + message['role'].capitalize() + '\\n' + message['content'] + '\\n\\n' }}"
    "{%- endfor -%}"
    "{%- if add_generation_prompt -%}{{ '### Assistant\\n' }}{%- endif -%}"
)
"""For models without a template. Ends of turns are found by ``PLAIN_STOPS``."""

PLAIN_STOPS = ("\n### User\n", "\n### System\n", "\n### Assistant\n")


class ChatTemplate:
    """A model's chat template.

    ``special`` are the tokenizer's named special tokens (``bos_token`` and so on), which templates
    refer to. Raises RequestError where the template refuses the messages, or is damaged: only
    once it is rendered, because a model with a damaged one still completes.
    """

    def __init__(self, source: str | None, special: Mapping[str, str] | None = None) -> None:
        self.source = PLAIN if source is None else source
        self.stop = PLAIN_STOPS if source is None else ()
        self._special = dict(special or {})

    def render(
        self,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **variables: Any,
    ) -> str:
        """The prompt text of a conversation; ``tokens`` encodes it safely."""
        try:
            return _compile(self.source).render(
                messages=[_plain_content(message) for message in messages],
                tools=list(tools) if tools else None,
                documents=None,
                add_generation_prompt=add_generation_prompt,
                **{**self._special, **variables},
            )
        except RequestError:
            raise
        except Exception as error:
            # Templates are programs: they raise on purpose, and by a mistake of their own.
            raise RequestError(
                f"The model's chat template refuses this conversation: {error}."
            ) from error

    def tokens(
        self,
        tokenizer: TextTokenizer,
        messages: Sequence[Message],
        *,
        add_generation_prompt: bool = True,
        tools: Sequence[Mapping[str, Any]] | None = None,
        **variables: Any,
    ) -> list[int]:
        """The prompt's tokens. Control tokens count where the template writes them; where the
        conversation spells one, it is ordinary text."""
        text = self.render(
            [_marked(message, tokenizer) for message in messages],
            add_generation_prompt=add_generation_prompt,
            tools=None if tools is None else [_marked_all(tool, tokenizer) for tool in tools],
            **variables,
        )
        tokens: list[int] = []
        for index, piece in enumerate(_MARKED.split(text)):
            # Odd pieces are what was marked.
            if piece:
                tokens += tokenizer.encode(piece, special=index % 2 == 0)
        start = list(tokenizer.prefix_ids)
        return tokens if tokens[: len(start)] == start else start + tokens


_BEGIN, _END = "\ue0f0", "\ue0f1"
_MARKED = re.compile(f"{_BEGIN}([^{_END}]*){_END}")
_CONTROL = re.compile(r"<[^<>\s]+>|\[/?\w+\]")


def _marked(message: Message, tokenizer: TextTokenizer) -> dict[str, Any]:
    """The message with private-use characters around control tokens that it spells."""
    marked: dict[str, Any] = _marked_all(_plain_content(message), tokenizer)
    return marked


def _marked_all(value: Any, tokenizer: TextTokenizer) -> Any:
    """The same for every text in lists and dictionaries, keys included."""
    if isinstance(value, str):
        return _marked_text(value, tokenizer)
    if isinstance(value, Mapping):
        return {_marked_text(k, tokenizer): _marked_all(v, tokenizer) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_marked_all(each, tokenizer) for each in value]
    return value


def _marked_text(text: str, tokenizer: TextTokenizer) -> str:
    def mark(found: re.Match[str]) -> str:
        token = tokenizer.token_id(found.group())
        steers = token is not None and not tokenizer.token_bytes(token)
        return f"{_BEGIN}{found.group()}{_END}" if steers else found.group()

    return _CONTROL.sub(mark, text.replace(_BEGIN, "").replace(_END, ""))


def _plain_content(message: Message) -> dict[str, Any]:
    """OpenAI's list-of-parts content as one string: templates of text models expect strings."""
    content = message.get("content")
    if isinstance(content, list):
        texts = [part.get("text", "") for part in content if isinstance(part, Mapping)]
        return {**message, "content": "".join(texts)}
    return {**message, "content": ""} if content is None else dict(message)


class _GenerationTag(jinja2.ext.Extension):
    """``{% generation %}`` marks what the assistant wrote, for training; here it is transparent."""

    tags = {"generation"}  # noqa: RUF012 (the base class declares it so)

    def parse(self, parser: Parser) -> list[nodes.Node]:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)


@lru_cache(maxsize=16)
def _compile(source: str) -> jinja2.Template:
    environment = jinja2.sandbox.ImmutableSandboxedEnvironment(
        trim_blocks=True,
        lstrip_blocks=True,
        extensions=[_GenerationTag, jinja2.ext.loopcontrols],
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise
    environment.globals["strftime_now"] = _now
    try:
        return environment.from_string(source)
    except jinja2.TemplateError as error:
        raise RequestError(f"The model's chat template is damaged: {error}.") from error


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    # jinja's own filter escapes for HTML, which a prompt must not.
    return json.dumps(
        value,
        ensure_ascii=ensure_ascii,
        indent=indent,
        separators=separators,
        sort_keys=sort_keys,
    )


def _raise(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _now(format_: str) -> str:
    return datetime.now().strftime(format_)
