"""Tabby's API, asked as its editor plugins ask (their requests as recorded in its OpenAPI)."""

from __future__ import annotations

import pytest

from tests.served import House, ask

ASKED = {
    "language": "python",
    "segments": {
        "prefix": "def area(width):\n    return ",
        "suffix": ")\n",
        "filepath": "src/shapes.py",
        "git_url": "https://example.org/shapes.git",
        "declarations": [{"filepath": "src/units.py", "body": "METRE = 1"}],
        "relevant_snippets_from_changed_files": [
            {"filepath": "src/old.py", "body": "height = 2", "score": 0.9}
        ],
    },
    "user": "somebody",
}


async def test_segments_are_completed_with_what_the_client_brings(house: House) -> None:
    house.says("abs(width)")
    status, answer = await ask(house, "/v1/completions", ASKED)
    assert status == 200
    assert answer["choices"] == [{"index": 0, "text": "abs(width)"}]
    assert answer["id"].startswith("cmpl-")
    prompt = house.prompt()
    assert "src/units.py\nMETRE = 1" in prompt
    assert "src/old.py\nheight = 2" in prompt
    assert "src/shapes.py" in prompt


@pytest.mark.parametrize(
    ("event", "query", "fate"),
    [("view", "", "shown"), ("select", "", "accepted"), ("dismiss", "", "dismissed"),
     ("select", "?select_kind=line", "accepted_line")],
)  # fmt: skip
async def test_events_tell_the_fate(house: House, event: str, query: str, fate: str) -> None:
    house.says("width * 2")
    _, answer = await ask(house, "/v1/completions", ASKED)
    body = {"type": event, "completion_id": answer["id"], "choice_index": 0, "elapsed": 1200}
    assert (await ask(house, f"/v1/events{query}", body))[0] == 200
    assert house.daemon.store is not None
    rows = [row async for row in house.daemon.store.export(None) if row["table"] == "completions"]
    assert [row["fate"] for row in rows] == [fate]


async def test_what_is_no_event_is_refused(house: House) -> None:
    body = {"type": "undo", "completion_id": "cmpl-1", "choice_index": 0}
    assert (await ask(house, "/v1/events", body))[0] == 400
    assert (await ask(house, "/v1/completions", {**ASKED, "mode": "magic"}))[0] == 400


async def test_health_and_settings_are_what_its_clients_look_for(house: House) -> None:
    async with house.tcp() as client:
        told = await (await client.get("/v1/health")).json()
        assert told["version"]["git_describe"].startswith("v0.")
        assert (told["model"], told["cuda_devices"]) == ("tiny", [])
        settings = await (await client.get("/v1beta/server_setting")).json()
        assert settings == {"disable_client_side_telemetry": True}
    async with house.tcp(token=False) as stranger:
        assert (await stranger.get("/v1/health")).status == 401


async def test_openais_bodies_on_the_same_path_are_still_openais(house: House) -> None:
    house.says("x")
    _, answer = await ask(house, "/v1/completions", {"prompt": '"segments"'})
    assert answer["object"] == "text_completion"
