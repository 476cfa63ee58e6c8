"""A real Neovim with the plugin, in a terminal, beside a scripted daemon."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

from tests.e2e.neovim import open_neovim
from tests.e2e.terminal import Terminal
from tests.lsp.scripted_daemon import ScriptedDaemon

ESCAPE, TAB = "\x1b", "\t"


class Editing:
    """A Neovim with one file, and the daemon it talks to."""

    def __init__(self, version: str, folder: Path, **options: str) -> None:
        self.daemon = ScriptedDaemon(folder / "home")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self.daemon.start(), self._loop).result(5)
        self.file = folder / "main.py"
        self.file.write_text("\n")
        self.terminal: Terminal = open_neovim(version, folder / "home", self.file, **options)
        # Starting a program is what a busy machine is slowest at.
        self.terminal.until("main.py", timeout_s=60)

    def fates(self, count: int) -> list[tuple[str, str, Any]]:
        """(id, fate, accepted_length) once there are ``count`` of them."""
        self.terminal.until(lambda _: len(self.daemon.bodies("/atlasd/v1/fate")) >= count)
        told = self.daemon.bodies("/atlasd/v1/fate")
        return [(one["id"], one["fate"], one.get("accepted_length")) for one in told]

    def until_accepted(self) -> None:
        """Whether the edit told of it first or the command is a matter of time."""
        told = self.daemon.bodies
        self.terminal.until(
            lambda _: any(one["fate"] == "accepted" for one in told("/atlasd/v1/fate"))
        )

    def written(self) -> str:
        """The file once it is saved."""
        self.terminal.send(ESCAPE)
        self.terminal.type(":w\r")
        self.terminal.until("written")
        return self.file.read_text()

    def close(self) -> None:
        self.terminal.close()
        asyncio.run_coroutine_threadsafe(self.daemon.stop(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(5)
        self._loop.close()

    def attached(self) -> None:
        """Wait until the bridge has met the daemon."""
        self.terminal.until(lambda _: bool(self.daemon.bodies("/atlasd/v1/status")))

    def shows(self, suggestion: str, *, typed: str = "", until: str = "") -> None:
        """Insert ``typed`` and wait for the suggestion behind it, or for ``until`` of it."""
        self.attached()
        self.daemon.complete_after(typed, suggestion)
        self.terminal.send("i")
        self.terminal.type(typed)
        self.terminal.until(until or suggestion)
