"""The aiohttp application: which path is answered by what, and what stands before every answer."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from importlib import import_module

from aiohttp import hdrs, web

from atlasd.errors import AtlasdError
from atlasd.server.auth import check_content_type, check_peer, check_tcp, on_socket
from atlasd.server.errors import HTTPError, error_response, from_exception
from atlasd.server.services import SERVICES, Services

log = logging.getLogger(__name__)

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

PUBLIC: tuple[tuple[str, str, str], ...] = (
    ("GET", "/health", "health.health"),
    ("GET", "/v1/health", "tabby.health"),
    ("POST", "/v1/health", "tabby.health"),
    ("GET", "/metrics", "metrics.metrics"),
    ("GET", "/dashboard", "dashboard.page"),
    ("GET", "/dashboard/data", "dashboard.data"),
    ("GET", "/dashboard/events", "dashboard.events"),
    ("GET", "/v1/models", "models.list_models"),
    ("GET", "/v1/models/{model:.+}", "models.get_model"),
    ("POST", "/v1/completions", "openai_completions.completions"),
    ("POST", "/v1/chat/completions", "openai_chat.chat_completions"),
    ("POST", "/v1/fim/completions", "mistral.fim_completions"),
    ("POST", "/infill", "infill.infill"),
    ("POST", "/completion", "llamacpp_completion.completion"),
    ("POST", "/completions", "llamacpp_completion.completion"),
    ("GET", "/props", "llamacpp.props"),
    ("GET", "/slots", "llamacpp.slots"),
    ("POST", "/tokenize", "llamacpp.tokenize"),
    ("POST", "/detokenize", "llamacpp.detokenize"),
    ("POST", "/apply-template", "llamacpp.apply_template"),
    ("POST", "/v1/events", "tabby.events"),
    ("GET", "/v1beta/server_setting", "tabby.server_setting"),
    ("POST", "/v1beta/chat/completions", "openai_chat.chat_completions"),
    ("GET", "/", "ollama_models.running"),
    ("HEAD", "/", "ollama_models.running"),
    ("GET", "/api/version", "ollama_models.version"),
    ("GET", "/api/tags", "ollama_models.tags"),
    ("GET", "/api/ps", "ollama_models.running_models"),
    ("POST", "/api/show", "ollama_models.show"),
    ("POST", "/api/generate", "ollama.generate_text"),
    ("POST", "/api/chat", "ollama.chat"),
)
"""Served on the socket and on TCP, there also below ``/t/TOKEN``. Handlers are named by module and
function, because health has to answer before all that the others need is imported."""

SOCKET_ONLY: tuple[tuple[str, str, str], ...] = (
    ("POST", "/atlasd/v1/complete", "internal.complete"),
    ("POST", "/atlasd/v1/fate", "internal.fate"),
    ("POST", "/atlasd/v1/workspace", "internal.workspace"),
    ("POST", "/atlasd/v1/edited", "internal.edited"),
    ("POST", "/atlasd/v1/index", "internal.index"),
    ("GET", "/atlasd/v1/status", "manage.status"),
    ("GET", "/atlasd/v1/progress", "manage.progress"),
    ("GET", "/atlasd/v1/why", "manage.why"),
    ("POST", "/atlasd/v1/pause", "manage.pause"),
    ("POST", "/atlasd/v1/resume", "manage.resume"),
    ("POST", "/atlasd/v1/drafting", "manage.drafting"),
    ("POST", "/atlasd/v1/stop", "manage.stop"),
    ("GET", "/atlasd/v1/data", "data.show"),
    ("GET", "/atlasd/v1/data/export", "data.export"),
    ("POST", "/atlasd/v1/data/purge", "data.purge"),
)
"""The bridge's and the CLI's: they steer the daemon and show stored code."""

GENERATES = ("completions", "/completion", "/infill", "/complete", "/api/generate", "/api/chat")

GENERATING = frozenset(
    path
    for method, path, _ in (*PUBLIC, *SOCKET_ONLY)
    if method == "POST" and path.endswith(GENERATES)
)
"""Routes that ask the model for text."""


def make_app(daemon: Services) -> web.Application:
    """The application; it is the same on the socket and on TCP, the guard tells them apart."""
    size = int(daemon.config.server.max_body_mb * 1024 * 1024)
    app = web.Application(client_max_size=size, middlewares=[_answering, _guard])
    app[SERVICES] = daemon
    for method, path, name in (*PUBLIC, *SOCKET_ONLY):
        app.router.add_route(method, path, _handler(name))
    for method, path, name in PUBLIC:
        app.router.add_route(method, "/t/{token}" + path, _handler(name))
    app.on_response_prepare.append(_cors)
    return app


def import_handlers() -> None:
    """Import what the handlers need; for a thread, while health already answers."""
    for _, _, name in (*PUBLIC, *SOCKET_ONLY):
        _found(name)


def _found(name: str) -> Handler:
    module, _, function = name.partition(".")
    found: Handler = getattr(import_module(f"atlasd.server.{module}"), function)
    return found


def _handler(name: str) -> Handler:
    async def handle(request: web.Request) -> web.StreamResponse:
        return await _found(name)(request)

    return handle


def plain_path(request: web.Request) -> str:
    """The path without the token prefix."""
    if request.path.startswith("/t/"):
        return "/" + request.path.split("/", 3)[-1] if request.path.count("/") > 2 else "/"
    return request.path


@web.middleware
async def _answering(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn exceptions into answers and count them. A client that left cancels the handler."""
    daemon = request.app[SERVICES]
    resource = request.match_info.route.resource
    route = resource.canonical.removeprefix("/t/{token}") if resource else "other"
    # Whoever only looks on (a dashboard does so for hours) is no load.
    asks = route in GENERATING
    daemon.meter.in_flight += asks
    started = time.perf_counter()
    status = 499
    try:
        response = await handler(request)
        status = response.status
        return response
    except asyncio.CancelledError:
        raise
    except Exception as error:
        if isinstance(error, ConnectionError) and _has_left(request):
            return web.Response(status=status)
        problem = from_exception(error)
        status = problem.status
        if isinstance(error, AtlasdError) and status == 500:
            log.error("%s %s failed: %s", request.method, route, error)
        elif status == 500:
            log.exception("%s %s failed", request.method, route)
        return error_response(problem, plain_path(request))
    finally:
        daemon.meter.in_flight -= asks
        daemon.meter.requests[route, status] += 1
        # The path of a request may hold the token; the route never does.
        log.debug(
            "%s %s %d %.1f ms",
            request.method,
            route,
            status,
            (time.perf_counter() - started) * 1000,
        )


def _has_left(request: web.Request) -> bool:
    """Whether the client is gone, which is not noticed before something is written to it."""
    return request.transport is None or request.transport.is_closing()


@web.middleware
async def _guard(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Nobody gets past here who may not."""
    daemon = request.app[SERVICES]
    path = plain_path(request)
    if on_socket(request):
        check_peer(request)
    elif daemon.access is None:
        raise HTTPError(403, "This listener has no rules.", code="forbidden")
    else:
        check_tcp(request, daemon.access, path)
        if path.startswith("/atlasd/"):
            raise HTTPError(403, "This is served on the UNIX socket only.", code="socket_only")
        if request.method == "OPTIONS":
            return _preflight(request)
    check_content_type(request)
    if (request.content_length or 0) > request.client_max_size:
        raise HTTPError(413, "The request body is too large.", code="request_too_large")
    return await handler(request)


def _preflight(request: web.Request) -> web.Response:
    """The question a browser asks first; only listed origins come this far."""
    if hdrs.ORIGIN not in request.headers:
        raise HTTPError(405, "OPTIONS is for browsers.", code="method_not_allowed")
    return web.Response(
        status=204,
        headers={
            "Access-Control-Allow-Methods": "GET, POST",
            "Access-Control-Allow-Headers": "Authorization, Content-Type, X-Api-Key",
            "Access-Control-Max-Age": "600",
        },
    )


async def _cors(request: web.Request, response: web.StreamResponse) -> None:
    response.headers["X-Content-Type-Options"] = "nosniff"
    access = request.app[SERVICES].access
    origin = request.headers.get("Origin")
    if origin is not None and access is not None and access.allows_origin(origin):
        response.headers["Access-Control-Allow-Origin"] = origin
        response.headers["Vary"] = "Origin"
