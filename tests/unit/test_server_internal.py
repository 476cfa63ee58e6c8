"""The daemon's own API, /infill, /health and /metrics over a real daemon with a scripted engine."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from atlasd.commands import connect
from atlasd.commands.clients import CLIENTS, UNKNOWN_CONTEXT
from atlasd.engine.protocol import DropRepository, SetDrafting, StreamStats
from atlasd.errors import StoreError
from atlasd.listeners import Lock, Running
from tests.served import READY, House, eventually, served
from tests.served import ask_on_socket as ask

CURSOR = {"prefix": "def add(x, y):\n    return ", "suffix": "\n", "path": "/r/a.py",
          "language": "python", "repository": "/r", "client": "test", "trusted": True}  # fmt: skip


async def test_a_completion_comes_with_its_id_source_and_statistics(house: House) -> None:
    house.says("x + y\n", stats=StreamStats(prompt_tokens=9, output_tokens=6))
    status, body = await ask(house, "/atlasd/v1/complete", CURSOR)
    assert status == 200
    (item,) = body["items"]
    assert (item["text"], item["source"], item["replace_right"]) == ("x + y", "model", 0)
    assert item["stats"]["prompt_tokens"] == 9
    assert item["total_ms"] > 0
    _, why = await ask(house, f"/atlasd/v1/why?id={item['id']}")
    assert why["steps"] == []


async def test_statistics_name_every_number_also_those_that_are_zero(house: House) -> None:
    house.says("x + y\n", stats=StreamStats(prompt_tokens=9, output_tokens=6))
    _, body = await ask(house, "/atlasd/v1/complete", CURSOR)
    (item,) = body["items"]
    _, why = await ask(house, f"/atlasd/v1/why?id={item['id']}")
    for told in (item["stats"], why["stats"]):
        assert set(StreamStats.__struct_fields__) <= set(told)
        assert (told["drafted"], told["rows"]) == ({}, 0)


async def test_typing_along_a_suggestion_asks_no_model(house: House) -> None:
    house.says("x + y\n")
    await ask(house, "/atlasd/v1/complete", CURSOR)
    along = {**CURSOR, "prefix": CURSOR["prefix"] + "x +"}
    _, body = await ask(house, "/atlasd/v1/complete", along)
    assert (body["items"][0]["text"], body["items"][0]["source"]) == (" y", "type-through")


async def test_a_newer_request_of_a_document_replaces_the_older(house: House) -> None:
    house.says("never seen", hold=True, pause=0.01)
    house.says("x + y\n")
    older = asyncio.create_task(
        ask(house, "/atlasd/v1/complete", {**CURSOR, "document": "d", "version": 1})
    )
    await eventually(lambda: bool(house.engine.submitted))
    changed = {**CURSOR, "prefix": "def other(x, y):\n    return ", "document": "d", "version": 2}
    _, newer = await ask(house, "/atlasd/v1/complete", changed)
    assert newer["items"][0]["text"] == "x + y"
    assert (await older) == (200, {"items": [], "superseded": True})
    assert house.daemon.meter.cancelled == 1


async def test_closing_the_connection_cancels(house: House) -> None:
    house.says("never seen", hold=True)
    async with house.unix() as client:
        asking = asyncio.create_task(client.post("/atlasd/v1/complete", json=CURSOR))
        await eventually(lambda: bool(house.engine.submitted))
        asking.cancel()
        await eventually(lambda: bool(house.engine.cancelled))
    assert house.engine.cancelled == [house.engine.submitted[0].stream]
    assert house.daemon.meter.cancelled == 1


async def test_the_fate_of_a_suggestion_is_stored(house: House) -> None:
    house.says("x + y\n")
    _, body = await ask(house, "/atlasd/v1/complete", CURSOR)
    told = {"id": body["items"][0]["id"], "fate": "accepted_word", "accepted_length": 3}
    assert await ask(house, "/atlasd/v1/fate", {**told, "fate": "shown"}) == (200, {})
    assert await ask(house, "/atlasd/v1/fate", told) == (200, {})
    assert house.daemon.store is not None
    (kept,) = await house.daemon.store.accepted("/r")
    assert (kept.text, kept.path) == ("x +", "/r/a.py")
    status, error = await ask(house, "/atlasd/v1/fate", {**told, "fate": "eaten"})
    assert status == 400
    assert error["error"]["param"] == "fate"


async def test_status_tells_model_engine_and_address(house: House) -> None:
    _, told = await ask(house, "/atlasd/v1/status")
    assert told["state"] == "ready"
    assert (told["model"]["name"], told["model"]["slots"]) == ("tiny", 16)
    assert told["engine"]["step_ms"] == {"1": 1.0}
    assert told["http"] == {"host": "127.0.0.1", "port": house.port}
    assert told["drafting"] is True


async def test_a_clock_that_is_set_back_makes_nobody_younger(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now - 3 * 86400)
    _, told = await ask(house, "/atlasd/v1/status")
    assert 0 <= told["uptime_s"] < 3600


async def test_drafting_can_be_switched(house: House) -> None:
    assert await ask(house, "/atlasd/v1/drafting", {"on": False}) == (200, {"on": False})
    assert SetDrafting(False) in house.engine.sent
    status, body = await ask(house, "/atlasd/v1/drafting", {})
    assert (status, body["error"]["param"]) == (400, "on")


async def test_a_workspace_opened_at_the_first_moment_is_not_lost(tmp_path: Path) -> None:
    """The bridge opens its folders as soon as the socket answers."""
    async with served(tmp_path) as house:
        house.daemon._opened.clear()
        (tmp_path / "repository").mkdir()
        body = {"open": [{"root": "/no/such"}, {"root": str(tmp_path / "repository"),
                                               "trusted": True}]}  # fmt: skip
        opening = asyncio.create_task(ask(house, "/atlasd/v1/workspace", body))
        await asyncio.sleep(0.05)
        assert not opening.done()
        house.daemon._opened.set()
        status, error = await opening
        assert (status, "/no/such" in error["error"]["message"]) == (400, True)
        assert [one["root"] for one in house.daemon.repositories()] == [
            str(tmp_path / "repository")]  # fmt: skip


async def test_stored_data_is_shown_exported_and_purged(house: House) -> None:
    house.says("x + y\n")
    _, body = await ask(house, "/atlasd/v1/complete", CURSOR)
    await ask(house, "/atlasd/v1/fate", {"id": body["items"][0]["id"], "fate": "accepted"})
    assert (await ask(house, "/atlasd/v1/data"))[0] == 200
    async with house.unix() as client, client.get("/atlasd/v1/data/export") as answer:
        rows = [json.loads(line) for line in (await answer.text()).splitlines()]
    assert any(row.get("text") == "x + y" for row in rows)
    assert all("table" in row for row in rows)
    status, _ = await ask(house, "/atlasd/v1/data/purge", {})
    assert status == 400
    _, removed = await ask(house, "/atlasd/v1/data/purge", {"repository": None})
    assert sum(removed["removed"].values()) > 0
    assert DropRepository(None) in house.engine.sent
    along = {**CURSOR, "prefix": CURSOR["prefix"] + "x +"}
    house.says(" y + z\n")
    _, body = await ask(house, "/atlasd/v1/complete", along)
    assert body["items"][0]["source"] == "model"


async def test_a_store_that_is_not_there_is_a_line_in_the_log(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    store, house.daemon.store = house.daemon.store, None
    status, answer = await ask(house, "/atlasd/v1/data")
    house.daemon.store = store
    assert (status, "database" in answer["error"]["message"]) == (500, True)
    assert "The database could not be opened." in caplog.text
    assert "Traceback" not in caplog.text


async def test_where_rows_cannot_be_removed_the_cached_files_are(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(repository: str | None) -> dict[str, int]:
        raise StoreError("The disk is full: nothing can be stored.")

    monkeypatch.setattr(house.daemon.store, "purge", full)
    kept = house.daemon.paths.cache / "drafting" / "tokenizer" / "positions.index"
    kept.parent.mkdir(parents=True)
    kept.touch()
    status, answer = await ask(house, "/atlasd/v1/data/purge", {"repository": None})
    assert (status, "disk is full" in answer["error"]["message"]) == (500, True)
    assert not kept.exists()


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("complete", {}, "prefix"),
        ("complete", {"prefix": "", "trigger": "sometimes"}, "trigger"),
        ("complete", {"prefix": "", "choices": 0}, "choices"),
        ("workspace", {"open": [{"root": "relative"}]}, "root"),
        ("index", {"path": "/no/such/folder"}, "path"),
    ],
)
async def test_wrong_internal_requests_are_named(
    house: House, path: str, body: dict[str, Any], param: str
) -> None:
    status, answer = await ask(house, f"/atlasd/v1/{path}", body)
    assert (status, answer["error"]["param"]) == (400, param)


async def test_metrics_are_prometheus_text_under_known_names(house: House) -> None:
    house.says("ab", stats=StreamStats(output_tokens=2, decode_ms=4.0, drafted={"positions": 3},
                                       accepted={"positions": 2}))  # fmt: skip
    await ask(house, "/v1/completions", {"prompt": "x"})
    async with house.unix() as client, client.get("/metrics") as answer:
        assert answer.headers["Content-Type"].startswith("text/plain; version=0.0.4")
        text = await answer.text()
    lines = text.splitlines()
    assert "llamacpp:tokens_predicted_total 2" in lines
    assert "llamacpp:spec_decode_num_accepted_tokens_total 2" in lines
    assert 'atlasd_accepted_tokens_total{source="positions"} 2' in lines
    assert 'atlasd_requests_total{route="/v1/completions",status="200"} 1' in lines
    assert 'atlasd_state{state="ready"} 1' in lines
    named = [line.split()[2] for line in lines if line.startswith("# TYPE")]
    assert len(named) == len(set(named))
    for line in lines:
        assert line.startswith("# ") or line.rsplit(" ", 1)[1]


async def test_metrics_have_every_digit(house: House) -> None:
    house.daemon.meter.drafted["positions"] = 123_456_789
    house.daemon.meter.decode_s = 0.125
    async with house.unix() as client, client.get("/metrics") as answer:
        lines = (await answer.text()).splitlines()
    assert 'atlasd_drafted_tokens_total{source="positions"} 123456789' in lines
    assert "llamacpp:tokens_predicted_seconds_total 0.125" in lines


async def test_lines_that_end_early_say_why_in_the_last(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def rows(repository: str | None) -> AsyncIterator[dict[str, object]]:
        yield {"table": "files"}
        raise StoreError("The disk is full.", "Make room.")

    monkeypatch.setattr(house.daemon.store, "export", rows)
    async with house.unix() as client, client.get("/atlasd/v1/data/export") as answer:
        first, last = (json.loads(line) for line in (await answer.text()).splitlines())
    assert first == {"table": "files"}
    assert last["error"]["message"] == "The disk is full. Make room."


async def test_what_is_pasted_names_the_model_that_runs_and_its_real_window(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The settings may name a folder and leave the window to the machine."""
    folders = house.daemon.paths
    monkeypatch.setenv("ATLASD_HOME", str(folders.data.parent))
    assert connect.where(folders).context == UNKNOWN_CONTEXT
    running = Running.read(folders)
    lock = Lock(folders)
    assert running is not None
    running.write(folders)
    place = await asyncio.to_thread(connect.where, folders)
    lock.release()
    assert (place.model, place.port, place.context) == ("tiny", house.port, READY.slot_tokens)
    assert f'"max_tokens": {READY.slot_tokens}' in CLIENTS["zed"].paste(place)
