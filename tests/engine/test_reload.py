"""Weights replaced in place, through the real engine process."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
import pytest_asyncio
from safetensors.numpy import load_file, save_file

from atlasd.engine.client import EngineClient, EngineStream
from atlasd.engine.framing import unpack_tokens
from atlasd.engine.protocol import Load
from atlasd.errors import EngineError
from tests.engine.tiny import HIDDEN, tiny_checkpoint

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def engine(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATLASD_HOME", str(tmp_path_factory.mktemp("home")))
        client = EngineClient(Load(model=str(tiny_checkpoint(tmp_path_factory.mktemp("m") / "a"))))
        await client.start()
        await client.wait_ready()
        yield client
        await client.stop()


async def collect(stream: EngineStream) -> list[int]:
    return [token async for message in stream for token in unpack_tokens(message.tokens)]


def other(folder: Path) -> str:
    made = tiny_checkpoint(folder)
    weights = load_file(made / "model.safetensors")
    factor = np.linspace(0.2, 2.0, HIDDEN, dtype=np.float32)
    weights["model.norm.weight"] = weights["model.norm.weight"] * factor
    save_file(weights, made / "model.safetensors", {"format": "pt"})
    return str(made)


async def test_streams_before_it_end_on_the_old_weights_later_ones_get_the_new(
    engine: EngineClient, tmp_path: Path
) -> None:
    old = await collect(engine.submit(range(40), max_tokens=200))
    running = engine.submit(range(40), max_tokens=200)
    reloading = asyncio.create_task(engine.reload(other(tmp_path / "b")))
    await asyncio.sleep(0)
    waiting = engine.submit(range(40), max_tokens=200)
    before, _, after = await asyncio.gather(collect(running), reloading, collect(waiting))
    assert before == old
    assert after != old
    assert waiting.stats.cached_tokens == 0
    assert await collect(engine.submit(range(40), max_tokens=200)) == after


async def test_a_stream_that_waits_for_new_weights_can_be_cancelled(
    engine: EngineClient, tmp_path: Path
) -> None:
    # so many that the door stays shut until the cancel has arrived, however busy the machine is
    running = [engine.submit(range(one, 60), max_tokens=300) for one in range(32)]
    reloading = asyncio.create_task(engine.reload(other(tmp_path / "c")))
    await asyncio.sleep(0)
    waiting = engine.submit(range(30), max_tokens=100)
    waiting.cancel()
    await asyncio.gather(*map(collect, running), reloading, collect(waiting))
    assert waiting.reason == "cancelled"


async def test_weights_that_do_not_fit_leave_the_old_ones_serving(
    engine: EngineClient, tmp_path: Path
) -> None:
    before = await collect(engine.submit(range(20), max_tokens=30))
    wrong = tiny_checkpoint(tmp_path / "d", positions=256)
    with pytest.raises(EngineError, match="shape"):
        await engine.reload(str(wrong))
    with pytest.raises(EngineError, match="replaced"):
        await engine.reload(str(tmp_path / "nothing"))
    assert await collect(engine.submit(range(20), max_tokens=30)) == before
