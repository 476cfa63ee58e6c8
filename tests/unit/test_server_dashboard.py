"""The dashboard: a page that loads nothing, numbers that are those of the streams."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest

from atlasd.engine.protocol import StreamStats
from atlasd.server.dashboard import EVERY_S, _speed
from atlasd.server.meter import Point
from tests.served import House, served


async def test_the_page_is_one_piece_and_may_load_nothing(house: House) -> None:
    async with house.tcp(token=False) as client:
        assert (await client.get("/dashboard")).status == 401
        async with client.get(f"/t/{house.token}/dashboard") as answer:
            page, policy = await answer.text(), answer.headers["Content-Security-Policy"]
            assert answer.headers["Referrer-Policy"] == "no-referrer"
        again = (await client.get(f"/t/{house.token}/dashboard")).headers
    (nonce,) = set(re.findall(r'nonce="([^"]+)"', page))
    assert policy.startswith("default-src 'none'")
    assert f"script-src 'nonce-{nonce}'" in policy
    assert again["Content-Security-Policy"] != policy
    assert house.token not in page
    assert not re.search(r'(src|href)="|url\(|@import|style="|innerHTML', page)
    assert set(re.findall(r"https?://[^\"' ]+", page)) <= {"http://www.w3.org/2000/svg"}


async def test_the_numbers_are_those_of_the_streams(house: House) -> None:
    stats = StreamStats(prompt_tokens=9, output_tokens=12, steps=4, decode_ms=100.0,
                        drafted={"positions": 10}, accepted={"positions": 8},
                        foreseen=7.5)  # fmt: skip
    house.says("return 12345\n", stats=stats)
    async with house.unix() as client:
        body = {"prefix": "def f():\n    ", "suffix": ", y)\n", "repository": "/r"}
        assert (await client.post("/atlasd/v1/complete", json=body)).status == 200
        told = await (await client.get("/dashboard/data")).json()
    assert (told["model"], told["state"], told["output_tokens"]) == ("tiny", "ready", 12)
    # 4 steps of 3.5 rows for 12 tokens; the engine has measured a step of one row alone.
    assert told["speed"] == {"decoding": 120.0, "plain": 140.0}
    assert told["sources"] == [{"name": "positions", "drafted": 10, "accepted": 8}]
    (repository,) = told["repositories"]
    assert repository["root"] == "/r"
    (point,) = repository["points"]
    assert (point["accepted"], point["confidence"]) == (0.8, 0.75)
    assert (point["lookahead"], point["tokens_per_step"]) == (2.5, 3.0)
    assert point["tokens_per_s"] == 120.0
    assert told["memory"] == {"weights": 1}


def test_speed_is_compared_with_the_same_streams_without_drafts() -> None:
    """Not with what a step costs when nobody else has the processor: that is faster than whatever
    is decoded beside a compiler, drafted or not."""
    point = Point(at=1.0, tokens=31, decode_ms=60.0, steps=10, drafted=30, accepted=20,
                  foreseen=20.0, draft_ms=2.0)  # fmt: skip
    speed = _speed([[point]], {"1": 1.0, "2": 1.2, "8": 2.4})
    # A step of four rows costs 1.6: 18 ms instead of 30.
    assert speed == {"decoding": 516.7, "plain": 310.0}
    alone = Point(at=1.0, tokens=31, decode_ms=60.0, steps=30, drafted=0, accepted=0, foreseen=0.0)
    assert _speed([[alone]], {"1": 1.0}) == {"decoding": 516.7, "plain": 516.7}
    assert _speed([], {"1": 2.0}) == {"decoding": 0.0, "plain": 500.0}
    assert _speed([[point]], {}) == {"decoding": 516.7, "plain": 0.0}


async def test_the_numbers_come_as_events(house: House) -> None:
    async with house.tcp() as client, client.get("/dashboard/events") as answer:
        line = await answer.content.readline()
        assert line.startswith(b"data: ")
        assert json.loads(line.removeprefix(b"data: "))["model"] == "tiny"


@pytest.mark.parametrize("path", ["/dashboard/events", "/atlasd/v1/progress"])
async def test_who_only_looks_on_does_not_hold_up_the_end(tmp_path: Path, path: str) -> None:
    async with served(tmp_path, ready=False) as house, house.unix() as client:
        answer = await client.get(path)
        assert (await answer.content.readline()).startswith(b"data: ")
        reading = asyncio.create_task(answer.read())
        assert not (await asyncio.wait([reading], timeout=0.2))[0]
        house.daemon.stop()
        await asyncio.wait_for(reading, EVERY_S / 2)
