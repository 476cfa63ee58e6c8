"""The engine process's post: a thread that reads from the daemon, and what is sent to it.

The step loop never blocks on the socket: it looks into the inbox between forward passes, and
what it says that the socket has no room for waits in the outbox.
"""

from __future__ import annotations

import os
import queue
import threading
from ctypes import c_int32

from atlasd.engine.compiling import Compiled
from atlasd.engine.framing import EngineEnd, frame
from atlasd.engine.protocol import FromEngine, Shutdown, ToEngine


class Inbox:
    """Messages from the daemon, in order. The process ends when the daemon's end closes."""

    def __init__(self, end: EngineEnd) -> None:
        self.serving = False
        """While it is not, nothing can be in the middle of anything, and ``Shutdown`` may end
        the process at once, however deep in a library it is."""
        self.arrived = c_int32()
        """Not zero once a message came after it was last set to zero, for native code to see."""
        self._messages: queue.SimpleQueue[ToEngine | Compiled] = queue.SimpleQueue()
        threading.Thread(target=self._read, args=(end,), daemon=True, name="inbox").start()

    def __len__(self) -> int:
        return self._messages.qsize()

    def put(self, message: Compiled) -> None:
        """Something this process has to tell itself; from any thread."""
        self._messages.put(message)
        self.arrived.value = 1

    def next(self, timeout: float | None = None) -> ToEngine | Compiled | None:
        """The next message; waits for one, at most ``timeout`` seconds (0: not at all)."""
        try:
            return self._messages.get(timeout != 0, timeout or None)
        except queue.Empty:
            return None

    def _read(self, end: EngineEnd) -> None:
        while (message := end.read()) is not None:
            if isinstance(message, Shutdown) and not self.serving:
                os._exit(0)
            self._messages.put(message)
            self.arrived.value = 1
        # The daemon is gone, so nobody waits for anything that is being computed here.
        os._exit(0)


class Outbox:
    """Messages to the daemon, in order. Whoever puts one sends it: a thread that took it over would
    have to wait until the step loop lets it run. What the socket has no room for is sent by a
    thread."""

    def __init__(self, end: EngineEnd) -> None:
        self._end = end
        self._left = bytearray()
        """What the socket had no room for; frames that follow queue behind it."""
        self._changed = threading.Condition()
        threading.Thread(target=self._write, name="outbox", daemon=True).start()

    def put(self, message: FromEngine) -> None:
        """Send at once where the socket takes it, else soon; never blocks."""
        frames = frame(message)
        with self._changed:
            sent = 0 if self._left else self._begin(frames)
            if sent < len(frames):
                self._left += frames[sent:]
                self._changed.notify_all()

    def close(self) -> None:
        """Return once everything is sent."""
        with self._changed:
            self._changed.wait_for(lambda: not self._left)

    def _begin(self, frames: bytes) -> int:
        try:
            return self._end.write_some(frames)
        except OSError:
            os._exit(0)

    def _write(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._left)
                frames = bytes(self._left)
            try:
                self._end.write(frames)
            except OSError:
                os._exit(0)
            with self._changed:
                del self._left[: len(frames)]
                self._changed.notify_all()
