"""The dashboard: one page without anything from elsewhere, and the numbers that it draws."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterable
from functools import cache
from itertools import chain, pairwise
from pathlib import Path
from typing import Any

from aiohttp import web

from atlasd.server.body import answer
from atlasd.server.meter import Point
from atlasd.server.services import Services, services
from atlasd.server.sse import event_stream

PAGE = Path(__file__).with_name("dashboard.html")

EVERY_S = 1.0

TELLING = 40
"""So many of the last streams tell how fast decoding is now."""


async def page(request: web.Request) -> web.Response:
    """The page. Its address holds the token where one is needed, so it tells nobody where it is."""
    nonce = secrets.token_urlsafe(16)
    policy = (
        f"default-src 'none'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}';"
        " connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return web.Response(
        text=_page().replace("NONCE", nonce),
        content_type="text/html",
        charset="utf-8",
        headers={
            "Content-Security-Policy": policy,
            "Referrer-Policy": "no-referrer",
            "Cache-Control": "no-store",
        },
    )


@cache
def _page() -> str:
    return PAGE.read_text(encoding="utf-8")


async def data(request: web.Request) -> web.Response:
    """The numbers of this moment."""
    return answer(await snapshot(services(request)))


async def events(request: web.Request) -> web.StreamResponse:
    """The same, once a second."""
    stopping = False
    async with event_stream(request, request.path) as opened:
        while not stopping:
            await opened.send(await snapshot(services(request)))
            stopping = await services(request).stopping_within(EVERY_S)
    return opened.response


async def snapshot(daemon: Services) -> dict[str, Any]:
    """What the page draws; see docs/internal-api.md."""
    engine = await daemon.engine_status() or {}
    meter, said = daemon.meter, daemon.progress()
    return {
        "model": daemon.model_name,
        "state": said["state"],
        "stage": said["stage"],
        "started": meter.started,
        "output_tokens": meter.output_tokens,
        "requests": {
            "in_flight": meter.in_flight,
            "streams": engine.get("streams", 0),
            "queued": engine.get("queued", 0),
        },
        "tokens": {
            "prompt": meter.prompt_tokens,
            "cached": meter.cached_tokens,
            "output": meter.output_tokens,
        },
        "speed": _speed(meter.recent.values(), engine.get("step_ms", {})),
        "sources": [
            {"name": name, "drafted": count, "accepted": meter.accepted.get(name, 0)}
            for name, count in sorted(meter.drafted.items())
        ],
        "repositories": [
            {"root": root, "points": [_drawn(point) for point in points]}
            for root, points in sorted(meter.recent.items())
        ],
        "memory": engine.get("memory", {}),
    }


def _speed(recent: Iterable[Iterable[Point]], step_ms: dict[str, float]) -> dict[str, float]:
    """Tokens per second of ``decoding`` over the last streams, and ``plain``: what they would have
    been without drafts, on the same machine with the same neighbours. For that the steps they took
    are compared with those they would have taken, by what steps cost."""
    last = sorted(chain.from_iterable(recent), key=lambda point: point.at)[-TELLING:]
    spent_ms = sum(point.decode_ms for point in last)
    decoding = 1000 * sum(point.tokens for point in last) / spent_ms if spent_ms else 0.0
    cost = _costs(step_ms)
    if not cost or not decoding:
        return {"decoding": round(decoding, 1), "plain": round(1000 / cost(1), 1) if cost else 0.0}
    plain_ms = sum(cost(1) * (point.steps + point.accepted) for point in last)
    taken_ms = sum(
        cost(1 + point.drafted / point.steps) * point.steps + point.draft_ms for point in last
    )
    return {"decoding": round(decoding, 1), "plain": round(decoding * taken_ms / plain_ms, 1)}


def _costs(step_ms: dict[str, float]) -> Callable[[float], float] | None:
    """Milliseconds of a step by its rows, between those that were measured; None: none was."""
    known = sorted((int(rows), ms) for rows, ms in step_ms.items())

    def cost(rows: float) -> float:
        for (below, low), (above, high) in pairwise(known):
            if rows <= above:
                return low + (high - low) * max(0.0, rows - below) / (above - below)
        return known[-1][1] * max(1.0, rows / known[-1][0])

    return cost if known else None


def _drawn(point: Point) -> dict[str, float]:
    """One stream: shares of what was drafted, drafted and made tokens a step."""
    drafted = point.drafted
    return {
        "at": round(point.at, 3),
        "accepted": round(point.accepted / drafted, 4) if drafted else 0.0,
        "confidence": round(point.foreseen / drafted, 4) if drafted else 0.0,
        "lookahead": round(drafted / point.steps, 2),
        "tokens_per_step": round(point.tokens / point.steps, 2),
        "tokens_per_s": round(1000 * point.tokens / point.decode_ms, 1) if point.decode_ms else 0.0,
    }
