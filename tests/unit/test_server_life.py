"""The model's life as clients see it: loading, unloaded, paused, crashed, and what it learned."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from atlasd.commands import start, status
from atlasd.completion.request import CompletionRequest
from atlasd.engine.protocol import Learned, Restore
from atlasd.errors import EngineError, StoreError
from atlasd.paths import paths
from atlasd.store.database import Store
from tests.served import House, eventually, served
from tests.served import ask_on_socket as ask

CURSOR = {"prefix": "def add(x, y):\n    return ", "suffix": "\n"}


async def test_a_request_on_its_way_does_not_bring_a_paused_model_back(house: House) -> None:
    """It came before the pause and asks the engine behind it: for the token that heals its
    prompt, say, or once a long text was tokenised in a thread."""
    async with house.daemon.use() as serving:
        assert (await ask(house, "/atlasd/v1/pause", {}))[0] == 200
        house.says("x + y\n")
        with pytest.raises(EngineError, match="paused"):
            await serving.completer.complete(CompletionRequest("return ", "\n"))
    assert (house.engine.state, house.daemon.state) == ("stopped", "paused")
    assert (await ask(house, "/atlasd/v1/resume", {}))[0] == 200
    await eventually(lambda: house.daemon.state == "ready")
    _, body = await ask(house, "/atlasd/v1/complete", CURSOR)
    assert body["items"][0]["text"] == "x + y"


async def test_a_request_that_waits_for_the_model_is_told_of_a_pause(tmp_path: Path) -> None:
    async with served(tmp_path, ready=False) as house:
        asking = asyncio.create_task(ask(house, "/atlasd/v1/complete", CURSOR))
        await eventually(lambda: house.daemon.supervisor.in_use == 1)
        await ask(house, "/atlasd/v1/pause", {})
        assert await asking == (200, {"items": [], "paused": True})


async def test_pausing_ends_the_engine_and_resuming_brings_it_back(house: House) -> None:
    assert await ask(house, "/atlasd/v1/pause", {}) == (200, {"state": "paused"})
    assert house.engine.state == "stopped"
    assert await ask(house, "/atlasd/v1/complete", CURSOR) == (
        200, {"items": [], "paused": True})  # fmt: skip
    status, body = await ask(house, "/v1/completions", {"prompt": "x"})
    assert (status, body["error"]["code"]) == (503, "paused")
    status, body = await ask(house, "/health")
    assert (status, body["status"]) == (503, "paused")
    await ask(house, "/atlasd/v1/resume", {})
    house.says("y")
    status, _ = await ask(house, "/v1/completions", {"prompt": "x"})
    assert status == 200


async def test_an_idle_model_is_unloaded_and_comes_back_on_request(tmp_path: Path) -> None:
    async with served(tmp_path, options={"engine.idle_minutes": 0.001}) as house:
        await eventually(lambda: house.daemon.state == "stopped")
        assert await ask(house, "/health") == (200, {"status": "ok"})
        assert house.engine.state == "stopped"
        house.says("back")
        _, body = await ask(house, "/v1/completions", {"prompt": "x"})
        assert body["choices"][0]["text"] == "back"


async def test_requests_wait_while_the_model_loads(tmp_path: Path) -> None:
    async with served(tmp_path, ready=False) as house:
        status, body = await ask(house, "/health")
        assert (status, body["status"], body["error"]["code"]) == (503, "loading", 503)
        house.says("at last")
        asking = asyncio.create_task(ask(house, "/v1/completions", {"prompt": "x"}))
        await asyncio.sleep(0.1)
        assert not asking.done()
        house.daemon.supervisor.start()
        assert (await asking)[1]["choices"][0]["text"] == "at last"


async def test_waiting_for_the_model_is_bounded(tmp_path: Path) -> None:
    options = {"server.load_wait_s": 0.05}
    async with served(tmp_path, ready=False, options=options) as house, house.unix() as client:
        async with client.post("/v1/completions", json={"prompt": "x"}) as answer:
            assert (answer.status, answer.headers["Retry-After"]) == (503, "5")
            assert (await answer.json())["error"]["code"] == "model_loading"
        async with client.post("/infill", json={"input_prefix": "", "input_suffix": ""}) as answer:
            assert (await answer.json())["error"]["type"] == "unavailable_error"


async def test_a_model_that_fails_says_why_everywhere(house: House) -> None:
    house.engine.become_failed("It does not fit.", "Choose a smaller one.")
    status, body = await ask(house, "/v1/completions", {"prompt": "x"})
    assert status == 503
    assert "It does not fit. Choose a smaller one." in body["error"]["message"]
    _, told = await ask(house, "/atlasd/v1/status")
    assert (told["state"], told["error"]) == ("failed", "It does not fit.")


async def test_a_crash_of_the_engine_ends_the_request_and_not_the_daemon(house: House) -> None:
    house.says("ab", hold=True)
    asking = asyncio.create_task(ask(house, "/v1/completions", {"prompt": "x"}))
    await eventually(lambda: bool(house.engine.submitted))
    house.engine.crash()
    status, body = await asking
    assert status == 503
    assert "engine process ended" in body["error"]["message"]
    house.engine.become_ready()
    house.says("again")
    assert (await ask(house, "/v1/completions", {"prompt": "x"}))[0] == 200


async def test_progress_is_told_until_ready(house: House) -> None:
    async with house.unix() as client, client.get("/atlasd/v1/progress") as answer:
        assert answer.content_type == "text/event-stream"
        raw = (await answer.read()).decode()
    assert raw == 'data: {"state":"ready","stage":"ready","fraction":1.0}\n\n'


LEARNED = [Learned("confidence", "/r", b"\x01"), Learned("costs", None, b"\x02")]


def restored(house: House) -> list[Restore]:
    return [one for one in house.engine.sent if isinstance(one, Restore)]


async def test_what_the_engine_learned_is_given_back_at_the_next_start(tmp_path: Path) -> None:
    async with served(tmp_path) as house:
        assert restored(house) == []
        for one in LEARNED:
            house.engine.learned(one)
    async with served(tmp_path) as house:
        assert restored(house) == [
            Restore(one.kind, one.repository, one.payload) for one in LEARNED
        ]


async def test_a_pause_in_the_middle_of_loading_costs_nothing_that_was_learned(
    tmp_path: Path,
) -> None:
    async with served(tmp_path) as house:
        house.engine.learned(LEARNED[0])
    async with served(tmp_path, ready=False) as house:
        house.daemon.supervisor.start()
        await ask(house, "/atlasd/v1/pause", {})
        await ask(house, "/atlasd/v1/resume", {})
        await eventually(lambda: house.daemon.state == "ready")
        assert [one.kind for one in restored(house)] == ["confidence"]
        house.engine.learned(LEARNED[1])
    async with served(tmp_path) as house:
        assert len(restored(house)) == 2


async def test_a_store_that_cannot_be_read_keeps_no_model_from_serving(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(self: Store, model: str) -> None:
        raise StoreError("The database is damaged.")

    monkeypatch.setattr(Store, "learned", broken)
    async with served(tmp_path) as house:
        assert house.daemon.state == "ready"
        assert restored(house) == []


async def test_whoever_starts_or_asks_is_told_that_nothing_is_stored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    paths({"ATLASD_HOME": str(tmp_path)}).create()
    paths({"ATLASD_HOME": str(tmp_path)}).database.write_text("no database")
    async with served(tmp_path) as house:
        said = await house.daemon.status()
    start._tell(said, house.port)
    assert "Nothing is stored" in capsys.readouterr().out
    assert "the database cannot be opened" in status.describe(said)
