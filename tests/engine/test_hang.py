"""An engine that hangs is ended and started again, and whoever waits is answered all the same."""

from __future__ import annotations

import asyncio
import ctypes
import logging
import os
import signal
import time
from collections.abc import Callable, Iterator

import psutil
import pytest
import pytest_asyncio

from atlasd.engine import liveness, process, supervision
from atlasd.engine.client import EngineClient, EngineStream, Stopped
from atlasd.engine.framing import unpack_tokens
from atlasd.engine.liveness import Liveness
from atlasd.engine.protocol import Load, Ready, Sampling
from atlasd.errors import EngineError
from tests.engine.tiny import tiny_checkpoint

pytestmark = pytest.mark.asyncio(loop_scope="module")

LOOK_S, STILL_S = 0.1, 1.0


@pytest.fixture(scope="module")
def model(tmp_path_factory) -> str:
    return str(tiny_checkpoint(tmp_path_factory.mktemp("model") / "tiny"))


@pytest.fixture(autouse=True)
def impatient(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("ATLASD_HOME", str(tmp_path_factory.mktemp("home")))
    for module in (liveness, supervision):
        monkeypatch.setattr(module, "LOOK_S", LOOK_S)
    monkeypatch.setattr(liveness, "STILL_S", STILL_S)
    monkeypatch.setattr(process, "DUMP_S", LOOK_S)


@pytest_asyncio.fixture(loop_scope="module")
async def engine(model):
    client = EngineClient(Load(model=model))
    await client.start()
    await client.wait_ready()
    yield client
    with_it = client.pid
    await client.stop()
    assert with_it is None or not psutil.pid_exists(with_it)


async def collect(stream: EngineStream) -> list[int]:
    return [token async for message in stream for token in unpack_tokens(message.tokens)]


async def until(condition: Callable[[], bool], patience_s: float = 20.0) -> None:
    for _ in range(int(patience_s / 0.01)):
        if condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("waited in vain")


async def test_whoever_waits_is_answered_by_the_next_process(engine, caplog):
    caplog.set_level(logging.INFO)
    seen = []
    engine.subscribe(seen.append)
    sampling = Sampling(temperature=0.9, seed=7)
    expected = await collect(engine.submit(range(30), max_tokens=20, sampling=sampling))
    before = engine.pid
    os.kill(before, signal.SIGSTOP)
    whole = engine.submit(range(30), max_tokens=20, sampling=sampling)
    given_up = engine.submit(range(30), max_tokens=20)
    given_up.cancel()
    question = asyncio.create_task(engine.status())
    assert await collect(whole) == expected
    assert whole.reason == "length"
    assert await collect(given_up) == []
    assert given_up.reason == "cancelled"
    assert await question is None
    assert not psutil.pid_exists(before)
    assert engine.restarts == 1
    assert "1 of its 2 requests are asked again" in caplog.text
    [stopped] = [notice for notice in seen if isinstance(notice, Stopped)]
    assert f"(pid {before}) hung and was ended" in stopped.message


async def test_a_stream_goes_on_where_it_was(engine):
    expected = await collect(engine.submit(range(30), max_tokens=400, logprobs=1))
    stream = engine.submit(range(30), max_tokens=400, logprobs=1)
    begun = await anext(stream)
    os.kill(engine.pid, signal.SIGSTOP)
    said = unpack_tokens(begun.tokens)
    logprobs = [*begun.logprobs]
    async for message in stream:
        said += unpack_tokens(message.tokens)
        logprobs += message.logprobs
    assert engine.restarts == 1
    assert len(said) < len(expected) + len(unpack_tokens(begun.tokens))
    assert said == expected
    assert len(logprobs) == len(said)


async def test_a_request_at_which_two_processes_hang_is_an_error(engine):
    def hang(notice: object) -> None:
        if isinstance(notice, Ready) and engine.restarts == 1:
            os.kill(engine.pid, signal.SIGSTOP)  # before it is asked again

    engine.subscribe(hang)
    os.kill(engine.pid, signal.SIGSTOP)
    stream = engine.submit(range(30), max_tokens=20)
    with pytest.raises(EngineError, match="hung and was ended"):
        await collect(stream)
    assert await collect(engine.submit(range(30), max_tokens=20))
    assert engine.restarts == 2


async def test_hangs_in_a_row_end_in_failure_and_not_in_a_loop(engine, monkeypatch):
    monkeypatch.setattr(supervision, "RESTART_PAUSES_S", (0.0,))
    for _ in range(2):
        await engine.wait_ready()
        # Steady after a crash, but not after a hang.
        engine._ready_at -= 2 * supervision.STEADY_AFTER_S
        os.kill(engine.pid, signal.SIGSTOP)
        stream = engine.submit(range(30), max_tokens=20)
        await until(lambda before=engine.pid: engine.pid != before)
    with pytest.raises(EngineError, match="hung"):
        await collect(stream)
    assert engine.state == "failed"
    assert "hung" in engine.failure.message


async def test_a_process_that_nothing_ends_is_a_failure_that_says_so(engine, monkeypatch):
    """As one that waits in a driver; here for a system that never tells of its end."""

    async def never() -> int:
        return await asyncio.Event().wait()

    monkeypatch.setattr(process, "UNKILLABLE_S", 3 * LOOK_S)
    stream = engine.submit(range(30), max_tokens=480)
    await anext(stream)
    pid = engine.pid
    monkeypatch.setattr(engine._process._process, "wait", never)
    os.kill(pid, signal.SIGSTOP)
    with pytest.raises(EngineError, match=rf"pid {pid}\) does not end, not even by SIGKILL"):
        await collect(stream)
    assert engine.state == "failed"
    assert engine.pid is None
    await engine.start()
    assert await collect(engine.submit(range(30), max_tokens=20))


async def test_an_idle_engine_that_stands_still_is_let_be(engine):
    before = engine.pid
    os.kill(before, signal.SIGSTOP)
    await asyncio.sleep(2 * STILL_S)
    os.kill(before, signal.SIGCONT)
    assert await collect(engine.submit(range(30), max_tokens=20))
    assert (engine.pid, engine.restarts) == (before, 0)


async def test_where_it_hangs_is_in_the_log(engine, caplog):
    caplog.set_level(logging.INFO)
    os.kill(engine.pid, signal.SIGUSR1)
    await until(lambda: "most recent call first" in caplog.text and "in serve" in caplog.text)


# What is not a hang


@pytest.fixture
def running() -> Iterator[Callable[[str], psutil.Popen]]:
    started = []

    def start(script: str) -> psutil.Popen:
        started.append(psutil.Popen(["sh", "-c", script]))
        return started[-1]

    yield start
    for one in started:
        for child in one.children(recursive=True):
            child.kill()
        one.kill()
        one.wait()


async def test_a_process_that_computes_or_has_a_compiler_do_so_is_at_work(running):
    busy = running("while :; do :; done")
    parent = running("sh -c 'while :; do :; done' & wait")
    for one in (busy, parent):
        alive = Liveness(one.pid)
        await until(alive.at_work)
        await asyncio.sleep(LOOK_S)
        assert alive.at_work()


async def test_a_process_that_sleeps_or_is_stopped_does_nothing(running):
    for script in ("sleep 60; :", "while :; do :; done"):
        one = running(script)
        alive = Liveness(one.pid)
        if "do" in script:
            await until(alive.at_work)
            os.kill(one.pid, signal.SIGSTOP)
        await until(lambda alive=alive: not alive.at_work())
        await asyncio.sleep(LOOK_S)
        assert not alive.at_work()


async def test_a_process_in_a_debuggers_hands_is_let_be(running):
    attach, detach = 16, 17  # PTRACE_ATTACH and PTRACE_DETACH
    one = running("sleep 60; :")
    ptrace = ctypes.CDLL(None, use_errno=True).ptrace
    if ptrace(attach, one.pid, None, None):
        pytest.skip(f"no process may be traced here: {os.strerror(ctypes.get_errno())}")
    try:
        await until(lambda: Liveness(one.pid).at_work() is None)
    finally:
        ptrace(detach, one.pid, None, None)


async def test_a_process_that_works_hangs_only_after_far_longer():
    alive = Liveness(os.getpid())
    for _ in range(int(liveness.STILL_S / LOOK_S) + 1):
        alive.silent(at_work=True)
    assert not alive.hangs(loading=False)
    alive.silent_s = liveness.AT_WORK_S
    assert alive.hangs(loading=False)
    assert not alive.hangs(loading=True)
    alive.answered()
    assert not alive.hangs(loading=False)


async def test_time_in_which_the_daemon_slept_does_not_count(engine, monkeypatch):
    """A suspended machine, or a daemon that is stopped with its engine: both wake up together."""
    before = engine.pid
    os.kill(before, signal.SIGSTOP)
    stream = engine.submit(range(30), max_tokens=20)
    await asyncio.sleep(2 * LOOK_S)
    time.sleep(2 * STILL_S)  # noqa: ASYNC251 -- the daemon's loop stands still as well
    await asyncio.sleep(2 * LOOK_S)
    os.kill(before, signal.SIGCONT)
    assert await collect(stream)
    assert (engine.pid, engine.restarts) == (before, 0)
