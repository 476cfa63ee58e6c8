"""What the daemon counts of the streams behind completions."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from atlasd.engine.protocol import StreamStats
from tests.served import House, eventually, served

VSCODE = Path(__file__).parents[2] / "editor-extensions" / "vscode"
CURSOR = {"prefix": "def add(x, y):\n    return ", "suffix": "\n", "repository": "/r"}


async def counted(house: House) -> dict[str, Any]:
    async with house.unix() as client, client.get("/atlasd/v1/status") as answer:
        told: dict[str, Any] = (await answer.json())["served"]
        return told


@pytest.mark.parametrize("text", ["x + y\n", "x", "\n\n"], ids=["shown", "too short", "blank"])
async def test_a_stream_counts_whatever_became_of_its_text(tmp_path: Path, text: str) -> None:
    async with served(tmp_path) as house, house.unix() as client:
        house.says(text, stats=StreamStats(output_tokens=6, steps=2, decode_ms=3.0))
        for _ in range(2):  # the second time it is remembered, and costs no stream
            assert (await client.post("/atlasd/v1/complete", json=CURSOR)).status == 200
        told = await counted(house)
        assert (told["requests"], told["output_tokens"]) == (2, 6)
        assert list(house.daemon.meter.recent) == ["/r"]


async def test_what_was_decoded_ahead_counts_as_well(tmp_path: Path) -> None:
    async with served(tmp_path) as house, house.unix() as client:
        house.says("x + y\n", stats=StreamStats(output_tokens=6))
        house.says("\n    return z\n", stats=StreamStats(output_tokens=5))
        assert (await client.post("/atlasd/v1/complete", json=CURSOR)).status == 200
        await eventually(lambda: house.daemon.meter.output_tokens == 11)


async def test_nobody_cancelled_what_was_decoded_ahead_in_vain(tmp_path: Path) -> None:
    async with served(tmp_path) as house, house.unix() as client:
        house.says("x + y\n")
        house.says("never asked for", hold=True)
        house.says("z\n    pass\n")
        assert (await client.post("/atlasd/v1/complete", json=CURSOR)).status == 200
        await eventually(lambda: len(house.engine.submitted) == 2)
        elsewhere = {**CURSOR, "prefix": "class Shape:\n    "}
        assert (await client.post("/atlasd/v1/complete", json=elsewhere)).status == 200
        await eventually(lambda: bool(house.engine.cancelled))
        assert house.daemon.meter.cancelled == 0


async def test_the_status_holds_what_the_status_bar_of_vs_code_reads(tmp_path: Path) -> None:
    source = (VSCODE / "src" / "status.ts").read_text()
    read = re.search(r"served\?: \{ (.*?) \};", source)
    assert read is not None
    names = re.findall(r"(\w+): number", read[1])
    async with served(tmp_path) as house:
        told = await counted(house)
    assert len(names) == 2
    assert set(names) <= set(told)


@pytest.mark.parametrize("repository", ["/r", None])
async def test_a_purged_repository_is_not_drawn_any_more(
    tmp_path: Path, repository: str | None
) -> None:
    async with served(tmp_path) as house, house.unix() as client:
        house.says("x + y\n", stats=StreamStats(output_tokens=6, steps=2))
        assert (await client.post("/atlasd/v1/complete", json=CURSOR)).status == 200
        assert list(house.daemon.meter.recent) == ["/r"]
        body = {"repository": repository}
        assert (await client.post("/atlasd/v1/data/purge", json=body)).status == 200
        assert not house.daemon.meter.recent
        assert house.daemon.meter.output_tokens == 6


async def test_only_requests_for_text_are_in_flight(tmp_path: Path) -> None:
    async with (
        served(tmp_path) as house,
        house.unix() as client,
        house.unix() as looker,
        looker.get("/dashboard/events"),
    ):
        assert (await counted(house))["in_flight"] == 0
        house.says("x", hold=True)
        asking = asyncio.create_task(client.post("/v1/completions", json={"prompt": "x"}))
        await eventually(lambda: bool(house.engine.submitted))
        assert (await counted(house))["in_flight"] == 1
        asking.cancel()
        await eventually(lambda: house.daemon.meter.in_flight == 0)
