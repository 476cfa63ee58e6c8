"""Requests in, answers out: typed JSON bodies with errors that name the key, and compact JSON."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from atlasd.server.errors import invalid

T = TypeVar("T")

LONG_BYTES = 64 << 10
"""Takes about 10 ms to tokenise."""

_PLACE = re.compile(r" - at `\$\.?(?P<path>[^`]*)`$")
_HALF = re.compile(rb"\\u[dD][89a-fA-F]")
_MISSING = re.compile(r"missing required field `(?P<field>[^`]+)`")


async def read(request: web.Request, kind: type[T]) -> T:
    """The JSON body as ``kind``; unknown keys are ignored. Raises a 400 that names the key."""
    raw = await request.read()
    if not raw.strip():
        raise invalid("The body is empty; a JSON object is needed.")
    try:
        return decoded(raw, kind)
    except msgspec.ValidationError as error:
        message, param = explain(str(error))
        raise invalid(message, param) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise invalid(f"The body is not valid JSON: {error}.") from None
    except RecursionError:
        raise invalid("The body is nested too deeply.") from None


def decoded(raw: bytes, kind: type[T]) -> T:
    """JSON as ``kind``. Editors that count in UTF-16 cut what is around the cursor in the middle of
    an emoji now and then: half of one is taken for a question mark. Raises msgspec.DecodeError."""
    try:
        return msgspec.json.decode(raw, type=kind)
    except msgspec.DecodeError as error:
        if isinstance(error, msgspec.ValidationError) or not _HALF.search(raw):
            raise
        try:
            text = json.dumps(json.loads(raw), ensure_ascii=False)
        except ValueError:
            raise error from None
    return msgspec.json.decode(text.encode("utf-8", "replace"), type=kind)


async def aside(request: web.Request, work: Callable[[], T]) -> T:
    """What ``work`` returns; done in a thread where the body is so long that tokenising it would
    keep everybody else waiting."""
    if len(await request.read()) < LONG_BYTES:
        return work()
    return await asyncio.to_thread(work)


def explain(message: str) -> tuple[str, str | None]:
    """A sentence and the key it is about, from msgspec's message."""
    place = _PLACE.search(message)
    param = place["path"] if place else ""
    text = _PLACE.sub("", message)
    if missing := _MISSING.search(text):
        param = f"{param}.{missing['field']}".lstrip(".")
        return f"{param} is required.", param
    text = text.replace("`", "")
    return (f"{param}: {text}." if param else f"{text}."), param or None


def sound_path(text: str, param: str) -> str:
    """A path as the system takes it: it refuses NUL wherever the path is used, far from here."""
    if "\0" in text:
        raise invalid(f"{param}: a path cannot hold NUL.", param)
    return text


def compact(value: Any) -> bytes:
    """JSON on one line without spaces."""
    try:
        return msgspec.json.encode(value)
    except UnicodeEncodeError:
        # A path whose name is no text where it was made: its bytes go out as Python has them.
        return json.dumps(msgspec.to_builtins(value), separators=(",", ":")).encode()


def answer(value: Any, status: int = 200) -> web.Response:
    """A JSON answer."""
    return web.Response(status=status, body=compact(value), content_type="application/json")
