"""The daemon's hold on an engine process that misbehaves."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from atlasd.engine import supervision
from atlasd.engine.client import EngineClient
from atlasd.engine.process import EngineProcess
from atlasd.errors import EngineError
from tests.e2e.running import alive
from tests.served import eventually

Worker = Callable[[str], None]


@pytest.fixture
def worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Worker:
    """Puts a program in the engine's place; ``fd`` is its end of the socket."""

    def install(program: str) -> None:
        script = tmp_path / "engine"
        lines = (f"#!{sys.executable}", "import os, subprocess, sys, time")
        script.write_text("\n".join([*lines, "fd = int(sys.argv[-1])", program]))
        script.chmod(0o700)
        monkeypatch.setattr(sys, "executable", str(script))

    return install


async def test_what_an_engine_has_started_ends_with_it(worker: Worker, tmp_path: Path) -> None:
    """A compiler, say. It holds the engine's output open, to whose end the daemon listens."""
    worker(
        "child = subprocess.Popen([*'sleep 60'.split()])\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(child.pid))\n"
        "print('out of memory', flush=True)"
    )
    process = await EngineProcess.spawn()
    async with asyncio.timeout(20):
        ended = await process.kill()
    assert "out of memory" in ended
    child = int((tmp_path / "pid").read_text())
    await eventually(lambda: not alive(child))


async def test_an_engine_that_talks_nonsense_has_crashed(
    worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervision, "RESTART_PAUSES_S", ())
    worker("os.write(fd, b'\\x01\\0\\0\\0\\xc1'); time.sleep(60)")
    client = EngineClient()
    stream = client.submit([1, 2], max_tokens=3)
    began = time.monotonic()
    async with asyncio.timeout(20):
        with pytest.raises(EngineError, match="engine process ended"):
            await anext(aiter(stream))
    assert (client.state, client.pid) == ("failed", None)
    assert time.monotonic() - began < 15
    await client.stop()
