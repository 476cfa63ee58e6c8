"""What goes wrong, as clients expect to read it: OpenAI's shape, and llama.cpp's on its paths."""

from __future__ import annotations

import json
import logging
from typing import Any

from aiohttp import web

from atlasd.errors import AtlasdError, EngineError, NotRunningError, RequestError

log = logging.getLogger(__name__)


class HTTPError(AtlasdError):
    """An answer that is an error. ``param`` names the offending key, ``code`` is for programs."""

    def __init__(
        self,
        status: int,
        message: str,
        hint: str = "",
        *,
        code: str | None = None,
        param: str | None = None,
        retry_after: int | None = None,
    ) -> None:
        super().__init__(message, hint)
        self.status = status
        self.code = code
        self.param = param
        self.retry_after = retry_after


def invalid(message: str, param: str | None = None, code: str | None = None) -> HTTPError:
    """A request that cannot be answered as it is (400)."""
    return HTTPError(400, message, param=param, code=code)


def from_exception(error: BaseException) -> HTTPError:
    """The answer for any exception; what is not ours becomes a 500 without its text."""
    if isinstance(error, HTTPError):
        return error
    if isinstance(error, RequestError):
        return HTTPError(400, error.message, error.hint)
    if isinstance(error, EngineError | NotRunningError):
        return HTTPError(503, error.message, error.hint, code="engine_unavailable", retry_after=1)
    if isinstance(error, AtlasdError):
        return HTTPError(500, error.message, error.hint)
    if isinstance(error, web.HTTPException):
        return _from_aiohttp(error)
    if isinstance(error, web.RequestPayloadError):
        return HTTPError(400, "The body is not what its headers say it is.", code="bad_body")
    return HTTPError(500, "Internal error; the log has the details.", code="internal_error")


def _from_aiohttp(error: web.HTTPException) -> HTTPError:
    if isinstance(error, web.HTTPNotFound):
        return HTTPError(404, "There is nothing at this path.", code="not_found")
    if isinstance(error, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(error.allowed_methods))
        return HTTPError(405, f"This path allows {allowed} only.", code="method_not_allowed")
    if isinstance(error, web.HTTPRequestEntityTooLarge):
        return HTTPError(413, "The request body is too large.", code="request_too_large")
    return HTTPError(error.status, error.reason, code="http_error")


def openai_type(status: int) -> str:
    """OpenAI's ``type`` of an error."""
    if status == 401:
        return "authentication_error"
    if status == 403:
        return "permission_error"
    if status == 503:
        return "unavailable_error"
    return "server_error" if status >= 500 else "invalid_request_error"


def openai_body(error: HTTPError) -> dict[str, Any]:
    """``{"error": {message, type, param, code}}``."""
    return {
        "error": {
            "message": str(error),
            "type": openai_type(error.status),
            "param": error.param,
            "code": error.code,
        }
    }


def llamacpp_body(error: HTTPError) -> dict[str, Any]:
    """``{"error": {code, message, type}}`` with the HTTP status as the code."""
    kind = "not_supported_error" if error.status == 501 else openai_type(error.status)
    return {"error": {"code": error.status, "message": str(error), "type": kind}}


LLAMACPP_PATHS = (
    *("/infill", "/health", "/completion", "/completions"),
    *("/props", "/slots", "/tokenize", "/detokenize", "/apply-template"),
)


def error_body(error: HTTPError, path: str) -> dict[str, Any]:
    """The body of an error on ``path`` (without the token prefix)."""
    if path.startswith("/api/"):
        return {"error": str(error)}  # Ollama's
    return llamacpp_body(error) if path in LLAMACPP_PATHS else openai_body(error)


def last_words(error: Exception, path: str) -> dict[str, Any]:
    """What an answer on ``path`` ends with that fails in the middle: its status line is out."""
    problem = from_exception(error)
    if problem.status == 500:
        log.error("An answer on %s ended early", path, exc_info=error)
    return error_body(problem, path)


def error_response(error: HTTPError, path: str) -> web.Response:
    """A whole answer for ``error``."""
    headers = {} if error.retry_after is None else {"Retry-After": str(error.retry_after)}
    if error.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    body = json.dumps(error_body(error, path), ensure_ascii=False, separators=(",", ":"))
    return web.Response(
        status=error.status, text=body, content_type="application/json", headers=headers
    )
