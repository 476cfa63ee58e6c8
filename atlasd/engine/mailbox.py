"""The engine process's post: a thread that reads from the daemon, and one that writes to it.

The step loop never blocks on the socket: it looks into the inbox between forward passes and
drops messages into the outbox.
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
    """Messages to the daemon, sent by a thread of their own."""

    def __init__(self, end: EngineEnd) -> None:
        self._messages: queue.SimpleQueue[FromEngine | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, args=(end,), name="outbox", daemon=True)
        self._thread.start()

    def put(self, message: FromEngine) -> None:
        """Send soon; never blocks."""
        self._messages.put(message)

    def close(self) -> None:
        """Return once everything is sent."""
        self._messages.put(None)
        self._thread.join()

    def _write(self, end: EngineEnd) -> None:
        while True:
            message = self._messages.get()
            frames = bytearray()
            # What has piled up goes out in one write.
            while message is not None:
                frames += frame(message)
                if self._messages.empty():
                    break
                message = self._messages.get()
            try:
                end.write(bytes(frames))
            except OSError:
                os._exit(0)
            if message is None:
                return
