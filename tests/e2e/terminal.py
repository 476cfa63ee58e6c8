"""A terminal with a program in it: type, and read the screen as a person would."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import signal
import struct
import termios
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pyte


class AnsweringScreen(pyte.Screen):
    """A screen that answers what programs ask their terminal, as Neovim does when it starts."""

    def __init__(self, columns: int, lines: int, answer: Callable[[str], None]) -> None:
        super().__init__(columns, lines)
        self._answer = answer

    def write_process_input(self, data: str) -> None:
        self._answer(data)

    def report_device_attributes(self, mode: int = 0, **kwargs: bool) -> None:
        """Unanswered: Neovim would then ask in a way that pyte draws as text."""

    def report_device_status(self, mode: int, private: bool = False) -> None:
        # pyte knows the public questions only.
        if not private:
            super().report_device_status(mode)


class Terminal:
    """A program in a pseudo-terminal whose screen is kept by pyte."""

    def __init__(
        self,
        command: list[str],
        environ: dict[str, str],
        cwd: Path,
        columns: int = 100,
        lines: int = 30,
    ) -> None:
        self.screen = AnsweringScreen(columns, lines, self.send)
        self._stream = pyte.ByteStream(self.screen)
        self._lock = threading.Lock()
        self.pid, self._fd = pty.fork()
        if self.pid == 0:  # the child
            os.chdir(cwd)
            os.execvpe(command[0], command, environ | {"TERM": "xterm-256color", "LANG": "C.UTF-8"})
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
        self._open = True
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        while self._open:
            ready, _, _ = select.select([self._fd], [], [], 0.2)
            if not ready:
                continue
            try:
                data = os.read(self._fd, 65536)
            except OSError:
                return
            if not data:
                return
            with self._lock:
                self._stream.feed(data)

    def send(self, keys: str) -> None:
        os.write(self._fd, keys.encode())

    def type(self, text: str, pause_s: float = 0.03) -> None:
        """Type a character at a time, as a person does."""
        for letter in text:
            self.send(letter)
            time.sleep(pause_s)

    def text(self) -> str:
        with self._lock:
            return "\n".join(line.rstrip() for line in self.screen.display)

    def colour_of(self, text: str) -> str | None:
        """Foreground colour of the first cell of ``text`` where it stands on the screen."""
        with self._lock:
            for row, line in enumerate(self.screen.display):
                if (column := line.find(text)) >= 0:
                    return str(self.screen.buffer[row][column].fg)
        return None

    def until(self, done: Callable[[str], bool] | str, timeout_s: float = 20.0) -> str:
        """The screen once it holds a text or satisfies a condition; what has ended without it is
        not waited for."""
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            ended = not self._reader.is_alive()
            shown = self.text()
            if done in shown if isinstance(done, str) else done(shown):
                return shown
            if ended:
                raise AssertionError(f"the program ended without {done}:\n{shown}")
            time.sleep(0.03)
        raise AssertionError(f"not on the screen within {timeout_s} s: {done}\n{self.text()}")

    def close(self) -> None:
        self._open = False
        try:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass
        self._reader.join(2)
        os.close(self._fd)
