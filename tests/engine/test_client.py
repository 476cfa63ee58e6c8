"""The client against the real engine process, on a tiny checkpoint."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest
import pytest_asyncio

from atlasd.engine.client import EngineClient, EngineStream, Stopped
from atlasd.engine.framing import pack_tokens, unpack_tokens
from atlasd.engine.protocol import (
    AddSegment,
    Failed,
    Learned,
    Load,
    Loading,
    Priority,
    Ready,
    Restore,
    Sampling,
    SetDrafting,
)
from atlasd.errors import EngineError
from tests.engine.tiny import VOCAB, tiny_checkpoint

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return str(tiny_checkpoint(tmp_path_factory.mktemp("model") / "tiny"))


@pytest.fixture(scope="module", autouse=True)
def home(tmp_path_factory):
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ATLASD_HOME", str(tmp_path_factory.mktemp("home")))
        yield


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def serving(model):
    """An engine for tests that leave it as it is."""
    client = EngineClient(Load(model=model))
    await client.start()
    await client.wait_ready()
    yield client
    await client.stop()


@pytest_asyncio.fixture(loop_scope="module")
async def engine(model):
    """An engine of the test's own, not loaded yet."""
    client = EngineClient(Load(model=model))
    await client.start()
    yield client
    await client.stop()


async def collect(stream: EngineStream) -> list[int]:
    return [token async for message in stream for token in unpack_tokens(message.tokens)]


async def until(condition: Callable[[], bool]) -> None:
    for _ in range(1000):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("waited in vain")


def has_ended(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@contextmanager
def standing_still(client: EngineClient) -> Iterator[None]:
    """What happens in here reaches the engine all at once, however busy the machine is."""
    os.kill(client.pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with suppress(ProcessLookupError):
            os.kill(client.pid, signal.SIGCONT)


async def test_requests_wait_for_readiness_and_are_answered(engine):
    assert engine.state == "loading"
    stream = engine.submit(range(30), max_tokens=20)
    tokens = await collect(stream)
    assert len(tokens) == 20
    assert stream.reason == "length"
    assert stream.stats.prompt_tokens == 30
    assert stream.stats.prefilled_tokens == 30
    assert engine.state == "ready"
    assert engine.ready_info.slot_tokens == 512
    again = engine.submit(range(30), max_tokens=20, drafting=False)
    assert await collect(again) == tokens
    assert again.stats.cached_tokens == 29
    assert again.stats.drafted == {}


async def test_a_request_can_be_cancelled_while_the_model_loads(engine):
    stream = engine.submit(range(30), max_tokens=20)
    stream.cancel()
    assert await collect(stream) == []
    assert stream.reason == "cancelled"
    assert engine.state == "loading"
    await engine.wait_ready()
    assert (await engine.status()).counters["requests"] == 0


async def test_loading_tells_how_far_it_is(model):
    client, seen = EngineClient(Load(model=model)), []
    client.subscribe(seen.append)
    await client.start()
    await client.wait_ready()
    await client.stop()
    assert isinstance(seen[0], Loading)
    assert all(0 <= notice.fraction <= 1 for notice in seen if isinstance(notice, Loading))
    assert next(type(notice) for notice in seen if not isinstance(notice, Loading)) is Ready
    assert isinstance(seen[-1], Stopped)


async def test_many_streams_decode_together_exactly_as_alone(serving):
    samplings = [Sampling(temperature=0.9 * (i % 2), seed=i) for i in range(20)]
    prompts = [[(i * 7 + j) % VOCAB for j in range(5 + 9 * i)] for i in range(20)]
    together = [
        serving.submit(prompt, max_tokens=30, sampling=sampling, priority=Priority(i % 3))
        for i, (prompt, sampling) in enumerate(zip(prompts, samplings, strict=True))
    ]
    outputs = await asyncio.gather(*map(collect, together))
    for prompt, sampling, output in zip(prompts, samplings, outputs, strict=True):
        alone = serving.submit(prompt, max_tokens=30, sampling=sampling, drafting=False)
        assert await collect(alone) == output


async def test_cancelling_ends_a_stream_at_once(serving):
    with standing_still(serving):
        stream = serving.submit(range(30), max_tokens=480)
        stream.cancel()
        stream.cancel()
    await collect(stream)
    assert stream.reason == "cancelled"
    assert (await serving.status()).streams == 0


async def test_leaving_a_stream_cancels_it(serving):
    with standing_still(serving):
        async with serving.submit(range(30), max_tokens=480) as stream:
            pass
    await collect(stream)
    assert stream.reason == "cancelled"


async def test_a_stream_can_be_promoted(serving):
    stream = serving.submit(range(30), max_tokens=20, priority=Priority.AHEAD)
    stream.promote(Priority.COMPLETION)
    assert len(await collect(stream)) == 20
    stream.promote(Priority.CHAT)


async def test_a_wrong_request_is_an_error_of_its_own(serving):
    with pytest.raises(EngineError, match="does not know"):
        await collect(serving.submit([VOCAB], max_tokens=4))
    with pytest.raises(EngineError, match="window holds 512"):
        await collect(serving.submit([1] * 600, max_tokens=4))
    assert len(await collect(serving.submit([1], max_tokens=4))) == 4


async def test_after_kill_9_streams_end_with_an_error_and_the_engine_is_started_again(engine):
    seen = []
    engine.subscribe(seen.append)
    await engine.wait_ready()
    expected = await collect(engine.submit(range(30), max_tokens=20))
    before = engine.pid
    os.kill(before, signal.SIGSTOP)
    stream = engine.submit(range(30), max_tokens=480)
    question = asyncio.create_task(engine.status())
    await asyncio.sleep(0)
    os.kill(before, signal.SIGKILL)
    with pytest.raises(EngineError, match="SIGKILL"):
        await collect(stream)
    await question
    assert await collect(engine.submit(range(30), max_tokens=20)) == expected
    assert engine.pid != before
    assert engine.restarts == 1
    assert any(isinstance(notice, Stopped) and "SIGKILL" in notice.message for notice in seen)


async def test_after_crashes_in_a_row_the_engine_has_failed_and_can_be_started(engine, monkeypatch):
    monkeypatch.setattr("atlasd.engine.supervision.RESTART_PAUSES_S", (0.0,))
    await engine.wait_ready()
    os.kill(engine.pid, signal.SIGKILL)
    await until(lambda: engine.state == "loading")
    waiting = engine.submit([1], max_tokens=400)
    pid = (await engine.wait_ready()) and engine.pid
    os.kill(pid, signal.SIGSTOP)
    doomed = engine.submit([1], max_tokens=400)
    os.kill(pid, signal.SIGKILL)
    with pytest.raises(EngineError, match="SIGKILL"):
        await collect(doomed)
    with suppress(EngineError):
        await collect(waiting)
    await until(lambda: engine.state == "failed")
    assert engine.state == "failed"
    with pytest.raises(EngineError, match="SIGKILL"):
        await collect(engine.submit([1], max_tokens=4))
    await engine.start()
    assert len(await collect(engine.submit([1], max_tokens=4))) == 4


async def test_stopping_ends_the_process_and_a_request_starts_it_again(engine):
    learned = []
    engine.subscribe(lambda notice: isinstance(notice, Learned) and learned.append(notice))
    await engine.wait_ready()
    expected = await collect(engine.submit(range(30), max_tokens=20))
    before = engine.pid
    with standing_still(engine):
        stream = engine.submit(range(30), max_tokens=480)
        stopping = asyncio.create_task(engine.stop())
        await asyncio.sleep(0.01)
    await stopping
    assert not psutil.pid_exists(before)
    assert engine.state == "stopped"
    assert engine.pid is None
    await collect(stream)
    assert stream.reason == "cancelled"
    assert {notice.kind for notice in learned} >= {"costs"}
    assert await engine.status() is None
    assert await engine.explain(stream) == []
    assert await collect(engine.submit(range(30), max_tokens=20)) == expected
    assert engine.pid != before


async def test_a_request_that_comes_while_the_engine_stops_starts_it_again(engine):
    await engine.wait_ready()
    before, stopping = engine.pid, asyncio.create_task(engine.stop())
    await asyncio.sleep(0)
    stream = engine.submit(range(30), max_tokens=20)
    dropped = engine.submit(range(30), max_tokens=20)
    dropped.cancel()
    await stopping
    assert len(await collect(stream)) == 20
    assert await collect(dropped) == []
    assert engine.pid != before


async def test_starting_and_stopping_at_once_ends_in_the_last_state(model):
    client = EngineClient(Load(model=model))
    await asyncio.gather(client.start(), client.stop(), client.start(), client.stop())
    assert client.state == "stopped"
    assert client.pid is None
    await asyncio.gather(client.stop(), client.start())
    await client.wait_ready()
    await client.stop()


async def test_stopping_while_the_model_loads_does_not_wait_for_it(model):
    client = EngineClient(Load(model=model))
    await client.start()
    await until(lambda: client.pid is not None)
    waiting = asyncio.create_task(client.wait_ready())
    stream = client.submit([1], max_tokens=4)
    pid, begun = client.pid, time.monotonic()
    await client.stop()
    assert time.monotonic() - begun < 3
    assert not psutil.pid_exists(pid)
    assert await collect(stream) == []
    with pytest.raises(EngineError, match="stopped"):
        await waiting


async def test_what_was_measured_is_kept_over_a_restart(model):
    client, seen = EngineClient(Load(model=model)), []
    client.subscribe(seen.append)
    await client.start()
    threads = (await client.wait_ready()).threads
    await client.stop()
    assert any(isinstance(n, Loading) and n.stage == "measuring steps" for n in seen)
    kept = next(n for n in seen if isinstance(n, Learned) and n.kind == "costs")
    fresh, seen = EngineClient(Load(model=model)), []
    fresh.subscribe(seen.append)
    fresh.send(Restore(kept.kind, kept.repository, kept.payload))
    await fresh.start()
    assert (await fresh.wait_ready()).threads == threads
    await fresh.stop()
    assert not any(isinstance(n, Loading) and n.stage == "measuring steps" for n in seen)


@pytest.mark.slow
async def test_an_engine_that_takes_long_to_save_is_waited_for(engine):
    """With a full index on a busy disk saving takes seconds: half a file is worth nothing."""
    told = []
    engine.subscribe(told.append)
    await engine.wait_ready()
    await collect(engine.submit(range(30), max_tokens=20))
    pid = engine.pid
    os.kill(pid, signal.SIGSTOP)
    asyncio.get_running_loop().call_later(6.0, os.kill, pid, signal.SIGCONT)
    before = time.monotonic()
    await engine.stop()
    assert time.monotonic() - before > 5.9
    assert any(isinstance(notice, Learned) for notice in told), "it was killed before it could save"


async def test_a_model_that_cannot_be_loaded_fails_with_what_to_do(tmp_path):
    client, seen = EngineClient(Load(model=str(tmp_path / "nothing.gguf"))), []
    client.subscribe(seen.append)
    await client.start()
    waiting = client.submit([1], max_tokens=4)
    with pytest.raises(EngineError):
        await client.wait_ready()
    with pytest.raises(EngineError):
        await collect(waiting)
    assert client.state == "failed"
    assert any(isinstance(notice, Failed) for notice in seen)
    await client.stop()
    assert client.state == "stopped"


async def test_the_engine_ends_when_the_daemon_dies(model, tmp_path):
    script = f"""
import asyncio, sys
from atlasd.engine.client import EngineClient
from atlasd.engine.protocol import Load
async def main():
    client = EngineClient(Load(model={model!r}))
    await client.start()
    await client.wait_ready()
    client.submit([1, 2, 3], max_tokens=400)
    print(client.pid, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    daemon = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=PIPE)
    pid = int(await daemon.stdout.readline())
    assert not has_ended(pid)
    daemon.kill()
    await daemon.wait()
    await until(lambda: has_ended(pid))


async def test_an_idle_engine_uses_no_processor_time(serving):
    await collect(serving.submit(range(30), max_tokens=20))
    await asyncio.sleep(0.3)
    process = psutil.Process(serving.pid)
    before = sum(process.cpu_times()[:2]), sum(process.num_ctx_switches())
    await asyncio.sleep(1.0)
    assert sum(process.cpu_times()[:2]) - before[0] < 0.05
    assert sum(process.num_ctx_switches()) - before[1] < 20


async def test_segments_are_drafted_from_and_drafting_can_be_switched(serving):
    assert serving.ready_info.drafters
    expected = await collect(serving.submit(range(30), max_tokens=60))
    told = []
    serving.subscribe(told.append)
    serving.send(SetDrafting(False))
    off = serving.submit(range(30), max_tokens=60)
    assert await collect(off) == expected
    assert off.stats.drafted == {}
    assert [n.drafters for n in told if isinstance(n, Ready)] == [[]]
    serving.send(SetDrafting(True))
    text = pack_tokens([*range(30), *expected])
    serving.send(AddSegment("a.py", "/repository", "file", text))
    await serving.drain()
    # A segment is taken up between steps or when the engine is idle, at the latest now.
    await asyncio.sleep(0.3)
    on = serving.submit(range(30), max_tokens=60, repository="/repository")
    assert await collect(on) == expected
    # How many is the pace's to say: a step of this model takes a tenth of a millisecond.
    assert sum(on.stats.accepted.values()) > 0
    assert on.stats.steps < off.stats.steps
    assert len(await serving.explain(on)) == on.stats.steps


async def test_the_engine_process_imports_no_torch_for_the_cpu_kernels(serving):
    from atlasd_kernels import cpu

    if not cpu.available()[0]:
        pytest.skip("the CPU kernels are not built here")
    assert "libtorch" not in await asyncio.to_thread(Path(f"/proc/{serving.pid}/maps").read_text)
