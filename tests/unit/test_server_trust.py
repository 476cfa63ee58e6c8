"""What may be learned from, whichever API asks: nothing of a workspace that is not trusted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from atlasd.engine.protocol import AddSegment
from tests.served import House
from tests.served import ask_on_socket as ask

WAYS: dict[str, dict[str, Any]] = {
    "trimmed": {},
    "as it comes": {"trim": False},
    "streamed": {"stream": True},
    "several": {"n_cmpl": 2},
    "only warming": {"n_predict": 0},
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "repository"
    folder.mkdir()
    return folder


async def infill(house: House, root: Path, way: str, *, trusted: bool) -> None:
    opened = {"open": [{"root": str(root), "trusted": trusted}]}
    assert (await ask(house, "/atlasd/v1/workspace", opened))[0] == 200
    asked = {"input_prefix": "return ", "input_suffix": "\n", "path": str(root / "a.py")}
    for text in ("x + y\n", "y + x\n"):
        house.says(text)
    async with house.unix() as client, client.post("/infill", json=asked | WAYS[way]) as answer:
        assert answer.status == 200
        await answer.read()


@pytest.mark.parametrize("way", WAYS)
async def test_infill_teaches_nothing_of_an_untrusted_workspace(
    house: House, root: Path, way: str
) -> None:
    await infill(house, root, way, trusted=False)
    assert {submit.learn for submit in house.engine.submitted} == {False}
    assert house.daemon.store is not None
    assert (await house.daemon.store.summary(None))["completions"] == {}


@pytest.mark.parametrize("way", WAYS)
async def test_what_infill_teaches_belongs_to_the_repository_and_is_purged_with_it(
    house: House, root: Path, way: str
) -> None:
    await infill(house, root, way, trusted=True)
    told = {(submit.learn, submit.repository, submit.language) for submit in house.engine.submitted}
    assert told == {(True, str(root), "python")}


@pytest.mark.parametrize(
    ("path", "opened"),
    [
        *((path, opened) for path in (".env", "deploy/id_rsa", ".aws/config") for opened in (0, 1)),
        ("scratch.py", True),
        ("private/notes.py", True),
    ],
)
async def test_nothing_is_kept_of_what_is_written_in_a_file_that_is_never_read(
    house: House, root: Path, path: str, opened: bool
) -> None:
    (root / ".gitignore").write_text("scratch.py\nprivate/\n")
    if opened:
        body = {"open": [{"root": str(root), "trusted": True}]}
        assert (await ask(house, "/atlasd/v1/workspace", body))[0] == 200
    cursor = {"prefix": "return ", "suffix": "\n", "path": str(root / path),
              "repository": str(root), "trusted": True}  # fmt: skip
    house.says("tiger\n")
    _, found = await ask(house, "/atlasd/v1/complete", cursor)
    assert found["items"][0]["text"] == "tiger"
    await ask(house, "/atlasd/v1/fate", {"id": found["items"][0]["id"], "fate": "accepted"})
    assert {submit.learn for submit in house.engine.submitted} == {False}
    assert not any(isinstance(sent, AddSegment) for sent in house.engine.sent)
    assert house.daemon.store is not None
    assert (await house.daemon.store.summary(None))["completions"] == {}


NAMELESS = "# the shop\nMAIL_HOST=mail\nMAIL_PASSWORD="


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(("before", "kept"), [(NAMELESS, False), (f"import os\n{NAMELESS}", True)])
async def test_nothing_is_kept_of_settings_without_a_file_name(
    house: House, way: str, before: str, kept: bool
) -> None:
    """As llama.vim sends what is written in a .env file."""
    for text in ("tiger\n", "lion\n"):
        house.says(text)
    body = {"input_prefix": before, "input_suffix": "\n", **WAYS[way]}
    async with house.unix() as client, client.post("/infill", json=body) as answer:
        assert answer.status == 200
        await answer.read()
    assert {submit.learn for submit in house.engine.submitted} == {kept}


async def test_context_from_a_file_with_secrets_is_left_out(house: House) -> None:
    house.says("x + y\n")
    extra = [
        {"filename": "/home/me/shop/.env", "text": "MAIL_PASSWORD=tiger"},
        {"text": "MAIL_PASSWORD=lion"},
        {"filename": "shop_pb2.py", "text": "bear = 1"},
    ]
    body = {"input_prefix": "return ", "input_suffix": "\n", "input_extra": extra}
    assert (await ask(house, "/infill", body))[0] == 200
    assert [name in house.prompt() for name in ("tiger", "lion", "bear")] == [False, False, True]


async def test_a_path_over_a_symlink_is_that_of_the_file(house: House, root: Path) -> None:
    (root / "src").mkdir()
    (root / ".gitignore").write_text("src/scratch.py\n")
    link = root.with_name("link")
    link.symlink_to(root)
    body = {"open": [{"root": str(link), "trusted": True}]}
    assert (await ask(house, "/atlasd/v1/workspace", body))[0] == 200
    for name, learn in (("scratch.py", False), ("kept.py", True)):
        house.says("x + y\n")
        cursor = {"prefix": f"# {name}\nreturn ", "suffix": "\n", "repository": str(link),
                  "path": str(link / "src" / name), "trusted": True}  # fmt: skip
        assert (await ask(house, "/atlasd/v1/complete", cursor))[0] == 200
        assert (house.engine.submitted[-1].learn, f"src/{name}" in house.prompt()) == (learn, True)


async def test_what_was_suggested_in_a_folder_that_is_not_open_is_purged_with_it(
    house: House, root: Path
) -> None:
    link = root.with_name("link")
    link.symlink_to(root)
    house.says("x + y\n")
    cursor = {"prefix": "return ", "suffix": "\n", "repository": f"{link}/",
              "path": str(link / "a.py"), "trusted": True}  # fmt: skip
    _, found = await ask(house, "/atlasd/v1/complete", cursor)
    await ask(house, "/atlasd/v1/fate", {"id": found["items"][0]["id"], "fate": "shown"})
    assert house.daemon.store is not None
    summary = await house.daemon.store.summary(str(root))  # as the command line names it
    assert summary["completions"] == {"shown": 1}


SECRET = "ghp_16C7e42F292c6912E7710c838347Ae178B4a"


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": f"use {SECRET}"}]}),
        ("/v1/completions", {"prompt": f"TOKEN = '{SECRET}'\n"}),
        ("/v1/completions", {"prompt": "x", "prediction": {"content": f"TOKEN = '{SECRET}'\n"}}),
        ("/infill", {"input_prefix": f"TOKEN = '{SECRET}'\n", "input_suffix": "\n"}),
    ],
)
async def test_what_is_written_beside_a_secret_may_repeat_it_and_is_not_learned(
    house: House, path: str, body: dict[str, Any]
) -> None:
    house.says("x")
    assert (await ask(house, path, body))[0] == 200
    house.says("x")
    plain = json.loads(json.dumps(body).replace(SECRET, "the usual one"))
    assert (await ask(house, path, plain))[0] == 200
    learned = [submit.learn for submit in house.engine.submitted]
    assert (learned[0], learned[-1]) == (False, True)


CHAT = {"messages": [{"role": "user", "content": "x"}]}


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", CHAT),
        ("/v1/completions", {"prompt": "x"}),
        ("/v1/completions", {"prompt": "x", "suffix": "y"}),
        ("/v1/completions", {"segments": {"prefix": "return ", "suffix": "\n"}}),
        ("/v1/fim/completions", {"prompt": "x"}),
        ("/infill", {"input_prefix": "return ", "input_suffix": "\n"}),
        ("/completion", {"prompt": "x"}),
        ("/api/generate", {"prompt": "x", "stream": False}),
        ("/api/generate", {"prompt": "x", "suffix": "y", "stream": False}),
        ("/api/chat", {**CHAT, "stream": False}),
    ],
)
async def test_a_request_may_ask_for_nothing_to_be_kept_of_it(
    house: House, path: str, body: dict[str, Any]
) -> None:
    asked = {"options": {"learn": False}} if path.startswith("/api/") else {"learn": False}
    for more, learn in ((asked, False), ({}, True)):
        assert house.daemon.serving is not None
        house.daemon.serving.completer.clear()  # what is remembered needs no stream
        house.engine.submitted.clear()
        house.says("x + y\n")
        assert (await ask(house, path, body | more))[0] == 200
        assert {submit.learn for submit in house.engine.submitted} == {learn}


@pytest.mark.parametrize(
    ("path", "learn"), [("/r/.env", False), ("/r/id_rsa", False), ("/r/a.py", True)]
)
@pytest.mark.parametrize("streamed", [False, True])
async def test_nothing_is_kept_of_a_chat_about_a_file_that_is_never_read(
    house: House, path: str, learn: bool, streamed: bool
) -> None:
    """Whether or not it looks like a secret; and whoever asks is told."""
    house.says("x")
    about = {**CHAT, "path": path, "repository": "/r", "stream": streamed}
    async with house.tcp() as client, client.post("/v1/chat/completions", json=about) as reply:
        assert reply.status == 200
        said = await reply.text()
    assert [submit.learn for submit in house.engine.submitted] == [learn]
    assert ('"learned":false' in said) is not learn


async def test_who_does_not_say_that_a_workspace_is_trusted_teaches_nothing(house: House) -> None:
    house.says("x + y\n")
    cursor = {"prefix": "return ", "suffix": "\n", "path": "/r/a.py", "repository": "/r"}
    _, body = await ask(house, "/atlasd/v1/complete", cursor)
    assert body["items"][0]["text"] == "x + y"
    await ask(house, "/atlasd/v1/fate", {"id": body["items"][0]["id"], "fate": "accepted"})
    # What would follow it may be decoded ahead by now.
    assert {submit.learn for submit in house.engine.submitted} == {False}
    assert house.daemon.store is not None
    assert (await house.daemon.store.summary(None))["completions"] == {}
