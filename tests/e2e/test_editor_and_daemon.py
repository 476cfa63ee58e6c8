"""An editor beside a real daemon, when things go wrong."""

# ruff: noqa: ASYNC110 (what is waited for happens in other processes)

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from tests.e2e.running import Home
from tests.e2e.tiny_model import write_tiny_model
from tests.lsp.conftest import Session, editor

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(180)]

PREFIX = "total = compute("


def told(session: Session) -> list[str]:
    """What the editor was asked to show its user."""
    return [message.message for message in session.client.messages]


async def until_suggested(session: Session, seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not await session.complete(0, len(PREFIX)):
            await asyncio.sleep(0.2)


class Stopped(NamedTuple):
    """An editor whose request waits for an engine that has just been stopped."""

    home: Home
    session: Session
    engine: int
    asked: asyncio.Task[list[Any]]


@asynccontextmanager
async def stopped_engine(tmp_path: Path, typed: str) -> AsyncIterator[Stopped]:
    home = Home.make(tmp_path / "home", write_tiny_model(tmp_path / "tiny"))
    await asyncio.to_thread(home.start)
    try:
        async with editor(tmp_path) as session:
            session.open(PREFIX + "\n")
            await until_suggested(session)
            engine = (await session.execute("atlasd.status"))["engine_pid"]
            os.kill(engine, signal.SIGSTOP)
            session.type(0, len(PREFIX), typed)
            asked = asyncio.create_task(session.complete(0, len(PREFIX) + 1))
            yield Stopped(home, session, engine, asked)
    finally:
        await asyncio.to_thread(home.stop)


async def test_a_killed_engine_costs_the_editor_one_suggestion(tmp_path: Path) -> None:
    async with stopped_engine(tmp_path, "!") as (_, session, engine, asked):
        await asyncio.sleep(0.5)
        assert not asked.done()
        os.kill(engine, signal.SIGKILL)
        assert await asked == []
        session.change((0, len(PREFIX)), (0, len(PREFIX) + 1), "?")
        await until_suggested(session)
        status = await session.execute("atlasd.status")
        assert status["engine_pid"] != engine
        assert status["served"]["engine_restarts"] == 1
        assert told(session) == []


async def test_an_engine_that_hangs_is_started_again_and_the_editor_is_answered(
    tmp_path: Path,
) -> None:
    async with stopped_engine(tmp_path, "?") as (home, session, engine, asked):
        silent = 0.0
        while silent < 5:
            status = await session.execute("atlasd.status")
            silent = status["engine_silent_s"]
            assert (status["state"], status["engine"]) == ("ready", None)
        assert "has not answered for" in (await session.execute("atlasd.why"))["nothing"]
        async with asyncio.timeout(60):
            await asked
            while (status := await session.execute("atlasd.status"))["state"] != "ready":
                await asyncio.sleep(0.1)
        assert status["engine_pid"] != engine
        assert status["engine_silent_s"] == 0
        assert status["served"]["engine_restarts"] == 1
        assert told(session) == []
        session.change((0, len(PREFIX)), (0, len(PREFIX) + 1), "!")
        await until_suggested(session)
        log = (home.folder / "state" / "atlasd.log").read_text()
        assert log.count(f"(pid {engine}) hung and was ended") == 1


async def test_a_daemon_that_cannot_start_says_why_in_the_editor(tmp_path: Path) -> None:
    config = tmp_path / "home" / "config" / "config.toml"
    config.parent.mkdir(parents=True)
    config.write_text('[model]\nnmae = "bundled"\n')
    async with editor(tmp_path, options={"startDaemon": True}) as session:
        async with asyncio.timeout(60):
            while not told(session):
                await asyncio.sleep(0.1)
        [message] = told(session)
        assert message.startswith("atlasd: Unknown setting model.nmae in ")
        assert message.endswith("Did you mean model.name?")
        session.open("a\n")
        assert await session.complete(0, 1) == []
