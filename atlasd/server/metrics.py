"""``GET /metrics``: Prometheus text, under llama.cpp's names where it has one, else atlasd_*."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from aiohttp import web

from atlasd.server.meter import Meter
from atlasd.server.services import Services, services

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

Sample = tuple[Mapping[str, str], float]


async def metrics(request: web.Request) -> web.Response:
    """All counters and gauges."""
    text = "".join(await families(services(request)))
    return web.Response(body=text.encode(), headers={"Content-Type": CONTENT_TYPE})


async def families(daemon: Services) -> list[str]:
    """Every metric family as text."""
    engine = await daemon.engine_status() or {}
    found = [*_requests(daemon.meter), *_drafts(daemon.meter), *_engine(engine)]
    states = ("loading", "ready", "failed", "stopped", "paused")
    found.append(
        _family(
            "atlasd_state",
            "gauge",
            "1 for the state the daemon is in",
            [({"state": one}, float(one == daemon.state)) for one in states],
        )
    )
    indexed = [({"repository": one["root"]}, one["tokens"]) for one in daemon.repositories()]
    found.append(
        _family("atlasd_repository_tokens", "gauge", "Tokens indexed by repository", indexed)
    )
    return found


def _requests(meter: Meter) -> Iterable[str]:
    by_route = [
        ({"route": route, "status": str(status)}, float(count))
        for (route, status), count in sorted(meter.requests.items())
    ]
    yield _family("atlasd_requests_total", "counter", "Requests answered", by_route)
    counters = (
        ("llamacpp:prompt_tokens_total", "Prompt tokens computed", meter.prefilled_tokens),
        ("llamacpp:prompt_seconds_total", "Time spent on prompts", meter.prefill_s),
        ("llamacpp:tokens_predicted_total", "Tokens generated", meter.output_tokens),
        ("llamacpp:tokens_predicted_seconds_total", "Time spent generating", meter.decode_s),
        ("llamacpp:n_decode_total", "Steps of streams", meter.steps),
        ("atlasd_prompt_tokens_total", "Prompt tokens, cached ones included", meter.prompt_tokens),
        ("atlasd_cached_tokens_total", "Prompt tokens found in a slot", meter.cached_tokens),
        ("atlasd_queue_seconds_total", "Time streams waited for a slot", meter.queue_s),
        ("atlasd_cancelled_total", "Streams cancelled by their client", meter.cancelled),
        ("atlasd_engine_restarts_total", "Restarts after a crash or a hang", meter.engine_restarts),
    )
    for name, help, value in counters:
        yield _family(name, "counter", help, [({}, float(value))])
    gauges = (
        (
            "llamacpp:prompt_tokens_seconds",
            "Prompt tokens per second, on average",
            _per(meter.prefilled_tokens, meter.prefill_s),
        ),
        (
            "llamacpp:predicted_tokens_seconds",
            "Generated tokens per second, on average",
            _per(meter.output_tokens, meter.decode_s),
        ),
        ("llamacpp:requests_processing", "Requests being answered", float(meter.in_flight)),
        ("process_start_time_seconds", "Unix time at which the daemon started", meter.started),
    )
    for name, help, value in gauges:
        yield _family(name, "gauge", help, [({}, value)])


def _drafts(meter: Meter) -> Iterable[str]:
    drafted, accepted = sum(meter.drafted.values()), sum(meter.accepted.values())
    prefix = "llamacpp:spec_decode_num"
    yield _family(f"{prefix}_draft_tokens_total", "counter", "Drafted tokens", [({}, drafted)])
    yield _family(
        f"{prefix}_accepted_tokens_total", "counter", "Accepted drafted tokens", [({}, accepted)]
    )
    for kind, counts in (("drafted", meter.drafted), ("accepted", meter.accepted)):
        samples = [({"source": name}, float(count)) for name, count in sorted(counts.items())]
        yield _family(
            f"atlasd_{kind}_tokens_total", "counter", f"Tokens {kind}, by drafter", samples
        )


def _engine(engine: dict[str, Any]) -> Iterable[str]:
    yield _family(
        "llamacpp:requests_deferred", "gauge", "Streams that wait", [({}, engine.get("queued", 0))]
    )
    yield _family(
        "atlasd_streams", "gauge", "Streams being decoded", [({}, engine.get("streams", 0))]
    )
    memory = [({"purpose": name}, held) for name, held in engine.get("memory", {}).items()]
    yield _family("atlasd_memory_bytes", "gauge", "Memory of the engine, by purpose", memory)
    steps = [({"rows": rows}, cost) for rows, cost in engine.get("step_ms", {}).items()]
    yield _family("atlasd_step_milliseconds", "gauge", "Measured cost of a step", steps)
    for name, value in sorted(engine.get("counters", {}).items()):
        yield _family(
            f"atlasd_engine_{name}", "gauge", "Since the engine started", [({}, float(value))]
        )


def _family(name: str, kind: str, help: str, samples: Iterable[Sample]) -> str:
    lines = [f"# HELP {name} {help}", f"# TYPE {name} {kind}"]
    for labels, value in samples:
        inside = ",".join(f'{key}="{_escape(text)}"' for key, text in labels.items())
        lines.append(
            f"{name}{{{inside}}} {_number(value)}" if inside else f"{name} {_number(value)}"
        )
    return "\n".join(lines) + "\n"


def _number(value: float) -> str:
    """Every digit of it: of a rounded counter Prometheus would see no growth, then a leap."""
    return repr(int(value)) if float(value).is_integer() else repr(float(value))


def _escape(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def _per(amount: float, seconds: float) -> float:
    return amount / seconds if seconds else 0.0
