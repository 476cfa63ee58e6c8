"""Keys, undo and buffers that Neovim has for itself, with the plugin beside them."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.e2e.editing import ESCAPE, TAB, Editing
from tests.e2e.neovim import VERSIONS

pytestmark = pytest.mark.e2e

FORMER = {
    "text": 'vim.keymap.set("i", "<Tab>", "was-here", { desc = "mine" })',
    "a function that changes the buffer": """vim.keymap.set("i", "<Tab>", function()
        vim.api.nvim_put({ "was-here" }, "c", false, true)
    end)""",
    "an expression with keys": (
        r'vim.cmd([[inoremap <expr> <Tab> pumvisible() ? "\<C-n>" : "here\<Home>was-\<End>"]])'
    ),
    "a function that gives keys": """vim.keymap.set("i", "<Tab>", function()
        return vim.keycode("here<Home>was-<End>")
    end, { expr = true, replace_keycodes = false })""",
    "another mapping": """vim.cmd("inoremap <Plug>(mine) was-here")
        vim.cmd("imap <Tab> <Plug>(mine)")""",
    "itself": 'vim.cmd("imap <Tab> <Tab>was-here")',
    "text, and set up twice": """vim.keymap.set("i", "<Tab>", "was-here")
        require("atlasd").setup({})""",
}


@pytest.mark.parametrize("former", FORMER)
@pytest.mark.parametrize("version", VERSIONS)
def test_a_mapping_that_tab_had_before_still_works(
    version: str, former: str, tmp_path: Path
) -> None:
    session = Editing(version, tmp_path, before=FORMER[former])
    try:
        session.attached()
        session.terminal.send("i" + TAB + "!")
        session.terminal.until("was-here!")
        assert session.written().strip() == "was-here!"
    finally:
        session.close()


def test_nothing_is_asked_in_the_command_line_window_nor_in_scratch_buffers(
    editing: Editing,
) -> None:
    editing.attached()
    terminal = editing.terminal
    terminal.type(":new | setlocal buftype=nofile\r")
    terminal.send("i")
    terminal.type("scratch")
    terminal.send(ESCAPE + "q:i")
    terminal.until("[Command Line]")
    terminal.type("let secret = 1")
    terminal.send(ESCAPE)
    terminal.type(":q\r:bwipe!\r")
    terminal.until(lambda shown: "[Command Line]" not in shown and "Scratch" not in shown)
    terminal.type("ihere")
    asked = editing.daemon.bodies
    terminal.until(lambda _: any(body["prefix"] == "here" for body in asked("/atlasd/v1/complete")))
    told = str(editing.daemon.calls)
    assert "scratch" not in told
    assert "secret" not in told


def test_of_two_buffers_without_a_name_only_one_is_suggested_in(editing: Editing) -> None:
    editing.attached()
    terminal = editing.terminal
    editing.daemon.complete_after("first\nmore", "_of_first")
    terminal.type(":set hidden | enew\r")
    terminal.type("ifirst")
    terminal.send(ESCAPE)
    terminal.type(":vnew\r")
    terminal.type("isecond")
    terminal.send(ESCAPE + "\x17l")
    terminal.type("omore")
    terminal.until("more_of_first")
    assert "second" not in str(editing.daemon.calls)


def test_what_is_typed_behind_tab_comes_behind_the_suggestion(editing: Editing) -> None:
    editing.shows("value = 1")
    editing.terminal.send(TAB + ";")
    editing.until_accepted()
    assert editing.written() == "value = 1;\n"


def test_an_accepted_suggestion_is_undone_by_itself(editing: Editing) -> None:
    editing.shows("[\n  1,\n]", typed="x = ", until="1,")
    editing.terminal.send(TAB)
    editing.until_accepted()
    editing.terminal.type(" # b")
    whole = "x = [\n  1,\n] # b\n"
    assert editing.written() == whole
    for keys, left in (("u", "x = \n"), ("u", "\n"), ("\x12\x12", whole)):
        editing.terminal.send(keys)
        assert editing.written() == left
