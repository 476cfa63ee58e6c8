"""Where files live, when nothing says whose home it is."""

from __future__ import annotations

import json
import pwd
from pathlib import Path

import pytest
from atlasd_lsp.socket_path import socket_path

from atlasd.cli import main
from atlasd.errors import RequestError
from atlasd.paths import expanded, paths
from atlasd.server.body import compact
from tests.served import House, ask_on_socket

NOBODY = "~there-is-no-such-user"


@pytest.fixture
def homeless(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that runs as a user whom it does not know."""
    for variable in ("HOME", "XDG_RUNTIME_DIR", "ATLASD_HOME"):
        monkeypatch.delenv(variable, raising=False)

    def unknown(user: object) -> object:
        raise KeyError(user)

    monkeypatch.setattr(pwd, "getpwuid", unknown)


def test_no_home_is_one_line(homeless: None, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RequestError, match="no home folder"):
        paths({})
    assert main(["status"]) == 1
    assert "set HOME" in capsys.readouterr().err
    assert socket_path({}).name == "atlasd.sock"
    assert paths({"HOME": "/home/u"}).state == Path("/home/u/.local/state/atlasd")


@pytest.mark.parametrize(
    "words",
    [
        ["complete", f"{NOBODY}/a.py:1"],
        ["index", NOBODY],
        ["data", "show", "--repository", NOBODY],
        ["start", "--model", f"{NOBODY}/model"],
    ],
)
def test_a_home_of_nobody_is_one_line(
    words: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("ATLASD_HOME", str(tmp_path))
    assert main(words) == 1
    assert NOBODY in capsys.readouterr().err
    with pytest.raises(RequestError, match=NOBODY):
        paths({"ATLASD_HOME": NOBODY})
    assert socket_path({"ATLASD_HOME": NOBODY}).parts[-3:] == (NOBODY, "run", "atlasd.sock")
    assert expanded("~").is_absolute()


async def test_a_folder_of_nobody_is_no_internal_error(house: House) -> None:
    status, body = await ask_on_socket(house, "/atlasd/v1/data/purge", {"repository": NOBODY})
    assert (status, NOBODY in body["error"]["message"]) == (400, True)


def test_a_path_that_is_no_text_is_told_all_the_same() -> None:
    """Every answer with it was an internal error."""
    socket = {"socket": b"/home/caf\xe9/atlasd.sock".decode("utf-8", "surrogateescape")}
    assert json.loads(compact(socket)) == socket
