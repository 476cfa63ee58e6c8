"""The plugin in real Neovims, in a terminal, beside a scripted daemon."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from tests.e2e.editing import ESCAPE, TAB, Editing
from tests.e2e.neovim import PLUGIN, VERSIONS, open_neovim

pytestmark = pytest.mark.e2e

ALT_RIGHT, ALT_DOWN = "\x1b[1;3C", "\x1b[1;3B"
F2 = "\x1bOQ"
SUGGESTION = "add(left, right)\n    return left"


def test_ghost_text_appears_and_tab_accepts_it(editing: Editing) -> None:
    editing.attached()
    editing.daemon.complete_after("", SUGGESTION)
    editing.terminal.send("i")
    editing.terminal.until("add(left, right)")
    editing.terminal.until("return left")
    ghost = editing.terminal.colour_of("add(left")
    editing.terminal.send(TAB)
    editing.until_accepted()
    assert {id for id, _, _ in editing.fates(2)} == {"c1"}
    assert editing.written() == SUGGESTION + "\n"
    assert editing.terminal.colour_of("add(left") != ghost


def test_words_and_lines_are_accepted_one_by_one(editing: Editing) -> None:
    editing.attached()
    editing.daemon.complete_after("", SUGGESTION)
    editing.daemon.complete_after(SUGGESTION[:3], SUGGESTION[3:], id="c2")
    editing.terminal.send("i")
    editing.terminal.until("add(left, right)")
    editing.terminal.send(ALT_RIGHT)
    assert editing.fates(2)[-1] == ("c1", "accepted_word", 3)
    editing.terminal.until(lambda _: len(editing.daemon.bodies("/atlasd/v1/complete")) >= 2)
    editing.terminal.until("add(left, right)")
    editing.terminal.send(ALT_DOWN)
    assert editing.fates(3)[-1] == ("c1", "accepted_line", 16)
    assert editing.written().startswith("add(left, right)")


def test_typing_along_keeps_the_ghost_and_accepting_adds_only_the_rest(editing: Editing) -> None:
    editing.attached()
    suggestion = "value = compute(x)"
    for typed in range(4):
        editing.daemon.complete_after(suggestion[:typed], suggestion[typed:], id=f"t{typed}")
    editing.terminal.send("i")
    editing.terminal.until(suggestion)
    for letter in "val":
        editing.terminal.send(letter)
        editing.terminal.until(suggestion)
    editing.terminal.send(TAB)
    editing.until_accepted()
    assert editing.written() == "value = compute(x)\n"


def test_typing_something_else_removes_the_ghost(editing: Editing) -> None:
    editing.shows("value = 1")
    editing.terminal.send("q")
    editing.terminal.until(lambda shown: "value = 1" not in shown)
    assert editing.written() == "q\n"


def test_the_right_bracket_is_replaced_not_doubled(editing: Editing) -> None:
    editing.attached()
    editing.terminal.send("i")
    editing.terminal.type("f()")
    editing.terminal.until("f()")
    editing.daemon.complete_after("f(", "a, b)", id="c7", replace_right=1)
    editing.terminal.send("\x1b[D")
    editing.terminal.until("f(a, b)")
    editing.terminal.send(TAB)
    editing.until_accepted()
    assert editing.written() == "f(a, b)\n"


def test_tab_without_a_suggestion_does_what_it_did(editing: Editing) -> None:
    editing.attached()
    editing.terminal.send("i")
    editing.terminal.send(TAB)
    editing.terminal.type("x")
    assert editing.written().strip(" \t\n") == "x"
    assert editing.file.read_text()[0] in " \t"


def test_health_finds_bridge_and_daemon(editing: Editing) -> None:
    editing.attached()
    editing.terminal.type(":checkhealth atlasd\r")
    editing.terminal.until("atlasd-lsp 0.")
    editing.terminal.until("OK ready: ")


def test_toggle_switches_suggestions_off_and_on(editing: Editing) -> None:
    editing.attached()
    editing.terminal.type(":Atlasd toggle\r")
    editing.terminal.until("atlasd: off")
    editing.terminal.send("i")
    editing.terminal.type("abc")
    editing.terminal.until("abc")
    editing.terminal.send(ESCAPE)
    editing.terminal.type(":Atlasd toggle\r")
    editing.terminal.until("atlasd: on")
    editing.terminal.type("0i")
    asked = editing.daemon.bodies
    editing.terminal.until(lambda _: bool(asked("/atlasd/v1/complete")))
    # What was typed while it was off was not asked about, not even late.
    assert {body["prefix"] for body in asked("/atlasd/v1/complete")} == {""}


NEXT = """vim.keymap.set("i", "<F2>", function() require("atlasd").next() end)"""


@pytest.mark.parametrize("version", VERSIONS)
def test_a_suggestion_asked_for_by_hand_comes_and_no_other(version: str, tmp_path: Path) -> None:
    session = Editing(version, tmp_path, settings="automatic = false", before=NEXT)
    try:
        session.attached()
        session.daemon.complete_after("x", "yz = 1")
        session.terminal.send("i")
        session.terminal.type("x")
        session.terminal.until("x\n")
        assert not session.daemon.bodies("/atlasd/v1/complete")
        session.terminal.send(F2)
        session.terminal.until("xyz = 1")
        (asked,) = session.daemon.bodies("/atlasd/v1/complete")
        assert asked["trigger"] == "invoked"
    finally:
        session.close()


def test_neovims_own_ghost_text_comes_when_asked_for_by_hand(tmp_path: Path) -> None:
    session = Editing("0.12", tmp_path, before=NEXT)
    try:
        session.attached()
        session.terminal.send("i")
        session.terminal.until(lambda _: bool(session.daemon.bodies("/atlasd/v1/complete")))
        session.daemon.complete_after("", "value = 1")
        session.terminal.send(F2)
        session.terminal.until("value = 1")
    finally:
        session.close()


CTRL_BRACKET = "\x1d"
CHOICES = ["first = 1", "second = 2", "third = 3"]
STEPS = """
vim.keymap.set("i", "<F2>", function() require("atlasd").next() end)
vim.keymap.set("i", "<F3>", function() require("atlasd").previous() end)
"""
F3 = "\x1bOR"


@pytest.mark.parametrize("version", VERSIONS)
def test_other_suggestions_are_asked_for_and_stepped_through(version: str, tmp_path: Path) -> None:
    session = Editing(version, tmp_path, before=STEPS)
    try:
        session.attached()
        session.daemon.complete_after("", CHOICES[0])
        session.terminal.send("i")
        session.terminal.until(CHOICES[0])
        session.daemon.choose_after("", CHOICES)
        session.terminal.send(F2)
        session.terminal.until(CHOICES[1])
        assert session.daemon.bodies("/atlasd/v1/complete")[-1]["choices"] == 3
        session.terminal.send(F2)
        session.terminal.until(CHOICES[2])
        session.terminal.send(F3)
        session.terminal.until(CHOICES[1])
        session.terminal.send(TAB)
        session.until_accepted()
        assert ("k1", "accepted") in [one[:2] for one in session.fates(1)]
        assert session.written() == CHOICES[1] + "\n"
    finally:
        session.close()


def test_a_dismissed_suggestion_goes_and_is_told_of(editing: Editing) -> None:
    editing.shows("value = 1")
    editing.terminal.send(CTRL_BRACKET)
    editing.terminal.until(lambda shown: "value = 1" not in shown)
    assert ("c1", "dismissed", None) in editing.fates(2)


def test_a_question_about_a_selection_is_answered_beside_it(editing: Editing) -> None:
    editing.attached()
    editing.terminal.type("ihidden = 1" + ESCAPE)
    editing.terminal.type(":%Atlasd chat what is this\r")
    chats = editing.daemon.bodies
    editing.terminal.until(lambda _: bool(chats("/v1/chat/completions")))
    (asked,) = chats("/v1/chat/completions")
    assert asked["messages"][0]["content"].startswith("what is this\n\n```python\nhidden = 1")
    assert asked["path"] == str(editing.file)
    editing.terminal.until(lambda shown: re.search(r"^ab\b", shown, re.M) and "hidden = 1" in shown)


@pytest.mark.parametrize("version", VERSIONS)
def test_the_statusline_and_the_help_tell_what_it_does(version: str, tmp_path: Path) -> None:
    said = re.search(r"set statusline\+=(.*)", (PLUGIN / "doc" / "atlasd.txt").read_text())
    assert said is not None
    line = f'vim.o.statusline = "%f {said[1]} "'
    session = Editing(version, tmp_path, before=line)
    try:
        session.attached()
        session.terminal.send("i")
        session.terminal.until("● atlasd")
        session.terminal.send(ESCAPE)
        loading = 's.last, s.asked = {state = "loading", fraction = 0.42}, vim.uv.now() + 1e9'
        session.terminal.type(
            f':lua local s = require("atlasd.status"); {loading}\r:redrawstatus\r'
        )
        session.terminal.until(lambda shown: "◌ atlasd 42%" in shown and "%%" not in shown)
        silent = 's.last = {state = "ready", engine_silent_s = 7}'
        session.terminal.type(f':lua local s = require("atlasd.status"); {silent}\r:redrawstatus\r')
        session.terminal.until("? atlasd")
        session.terminal.type(":helptags ALL | help atlasd-keys\r")
        session.terminal.until("accept a word")
    finally:
        session.close()


SILENT = """
local function server()
  return {
    request = function() return true, 1 end,
    notify = function() return true end,
    is_closing = function() return false end,
    terminate = function() end,
  }
end
"""


@pytest.mark.parametrize("version", VERSIONS)
def test_a_command_before_the_bridge_has_started_says_so(version: str, tmp_path: Path) -> None:
    file = tmp_path / "main.py"
    file.write_text("\n")
    terminal = open_neovim(version, tmp_path / "home", file, "cmd = server", before=SILENT)
    try:
        terminal.until("main.py")
        terminal.type(":Atlasd status\r")
        terminal.until("the bridge is starting; ask again in a moment")
    finally:
        terminal.close()


LATE = """
local first
local function answer(text)
  return { items = { { insertText = text } } }
end
local function server()
  return {
    request = function(method, _, done)
      if method == "initialize" then
        done(nil, { capabilities = { inlineCompletionProvider = true } })
      elseif method == "shutdown" then
        done(nil, nil)
      elseif not first then
        first, vim.o.statusline = done, "asked once"
      else
        done(nil, answer("new"))
        first(nil, answer("xold"))
      end
      return true, 1
    end,
    notify = function() return true end,
    is_closing = function() return false end,
    terminate = function() end,
  }
end
"""


@pytest.mark.parametrize("version", VERSIONS)
def test_an_answer_that_was_overtaken_is_not_shown(version: str, tmp_path: Path) -> None:
    file = tmp_path / "main.py"
    file.write_text("\n")
    terminal = open_neovim(
        version, tmp_path / "home", file, "cmd = server, native = false", before=LATE
    )
    try:
        terminal.until("main.py")
        terminal.send("i")
        terminal.until("asked once")
        terminal.send("x")
        assert "xold" not in terminal.until("xnew")
    finally:
        terminal.close()


def test_who_types_before_the_bridge_is_there_gets_a_suggestion(tmp_path: Path) -> None:
    session = Editing("0.11", tmp_path, before="vim.cmd.startinsert()")
    try:
        session.daemon.complete_after("", "value = 1")
        session.terminal.until("value = 1")
    finally:
        session.close()
