"""llama.vim, unmodified, in a real Neovim against a real daemon: only its URL is another.

Its source is not part of this repository: put the path of its ``llama.vim`` into LLAMA_VIM.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.neovim import neovim
from tests.e2e.running import Home
from tests.e2e.terminal import Terminal

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(300)]

CODE = """\
def first_name(person):
    return person.first_name


def last_name(person):
    return person.last_name


"""
MARK = "| c: "
"""The plugin draws its timings beside the suggestion, from the answer's ``timings``."""


@pytest.fixture
def plugin(tmp_path: Path) -> Path:
    """A runtime folder with the plugin in it, to be initialised by ``llama#init``."""
    source = os.environ.get("LLAMA_VIM", "")
    if not source or not Path(source).is_file():
        pytest.skip("no llama.vim here: set LLAMA_VIM to the path of its autoload/llama.vim")
    folder = tmp_path / "runtime"
    (folder / "autoload").mkdir(parents=True)
    (folder / "autoload" / "llama.vim").write_text(Path(source).read_text())
    return folder


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Home]:
    daemon = Home.make(tmp_path / "home", Path("bundled"))
    daemon.start()
    yield daemon
    daemon.stop()


def configuration(home: Home, plugin: Path) -> str:
    """What `atlasd connect llama.vim` says to set, and the plugin's own defaults beside it."""
    url = f"http://127.0.0.1:{home.port}/t/{home.token}/infill"
    settings = {
        **dict.fromkeys(("endpoint", "endpoint_fim"), url),
        "n_prefix": 256,
        "n_suffix": 64,
        "n_predict": 24,
        "t_max_prompt_ms": 500,
        "t_max_predict_ms": 3000,
        "show_info": 2,
        "auto_fim": True,
        "max_line_suffix": 8,
        "ring_n_chunks": 16,
        "ring_chunk_size": 64,
        "ring_scope": 1024,
        "ring_update_ms": 1000,
    }
    return (
        f"set runtimepath^={plugin}\nset noswapfile shadafile=NONE expandtab\n"
        f"let g:llama_config = json_decode('{json.dumps(settings)}')\ncall llama#init()\n"
    )


@pytest.mark.parametrize("version", ["0.12"])
def test_ghost_text_of_llama_vim_is_ours_and_is_accepted(
    version: str, home: Home, plugin: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "people"
    folder.mkdir()
    subprocess.run(["git", "init", "-q", folder], check=True)
    file = folder / "names.py"
    file.write_text(CODE)
    config = plugin / "init.vim"
    config.write_text(configuration(home, plugin))
    environ = {"PATH": os.environ["PATH"], "HOME": str(tmp_path), "XDG_STATE_HOME": str(tmp_path)}
    terminal = Terminal(
        [neovim(version), "-n", "-u", str(config), str(file)], environ, folder, columns=240
    )
    try:
        terminal.until("first_name")
        terminal.send("Go")
        terminal.type("def nick_name(person):\r    return person", 0.05)
        before = terminal.text()
        # A small model may have nothing to say at one place; it has at the next.
        for letter in ["", *".nick_name"]:
            terminal.type(letter)
            if ghost(terminal):
                break
        shown = terminal.until(MARK)
        terminal.send("\t")
        terminal.until(lambda text: MARK not in text or text != shown)
        terminal.send("\x1b")
        terminal.type(":w\r")
        terminal.until("written")
    finally:
        terminal.close()
    assert MARK not in before
    written = file.read_text()
    assert written.startswith(CODE)
    last = written[len(CODE) :].split("\n", 1)[1]
    assert len(last.strip()) > len("return person")


def ghost(terminal: Terminal) -> bool:
    try:
        terminal.until(MARK, 4)
    except AssertionError:
        return False
    return True
