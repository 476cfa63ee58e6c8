"""The engine's operating system process, as the daemon holds it: spawn, talk, end."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import signal
import socket
import sys
from collections import deque
from collections.abc import AsyncIterator

from atlasd.engine.framing import frame, read_from_engine
from atlasd.engine.protocol import DUMP_SIGNAL, FromEngine, Shutdown, ToEngine
from atlasd.errors import EngineError

log = logging.getLogger(__name__)

DUMP_S = 2.0
"""A process that hangs has so long to write down where; one that is stopped (SIGSTOP) cannot."""

UNKILLABLE_S = 30.0
"""A process that SIGKILL has not ended by then waits in the kernel, for a driver or a disk."""

TAIL_LINES = 20
"""Lines of the process's own output that are kept to explain its end."""


class EngineProcess:
    """A running ``python -m atlasd.engine.worker`` and the daemon's end of its socket pair."""

    def __init__(
        self,
        process: asyncio.subprocess.Process,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
    ) -> None:
        self.pid = process.pid
        self._process = process
        self._reader = reader
        self._writer = writer
        self._tail: deque[str] = deque(maxlen=TAIL_LINES)
        self._output = asyncio.create_task(self._follow_output())

    @classmethod
    async def spawn(cls) -> EngineProcess:
        """Start a process; it loads what the ``Load`` message says."""
        ours, theirs = socket.socketpair()
        with theirs:
            # Waiting threads must not spin: two cores are shared with an editor and a compiler.
            environment = {
                "OMP_WAIT_POLICY": "passive",
                "OPENBLAS_NUM_THREADS": "1",  # numpy's matmuls are for idle moments
                **os.environ,
            }
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-P", "-m", "atlasd.engine.worker", str(theirs.fileno())),
                pass_fds=(theirs.fileno(),),
                env=environment,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                # Ctrl-C in the terminal is for the daemon, which ends the engine in good order.
                start_new_session=True,
            )
        reader, writer = await asyncio.open_connection(sock=ours)
        return cls(process, reader, writer)

    def send(self, message: ToEngine) -> None:
        """Queue a message; never blocks. A process that is gone swallows it."""
        if not self._writer.is_closing():
            self._writer.write(frame(message))

    async def drain(self) -> None:
        """Wait until the process has taken most of what was sent."""
        with contextlib.suppress(ConnectionError):
            await self._writer.drain()

    async def messages(self) -> AsyncIterator[FromEngine]:
        """Everything the process says, until it closes its end."""
        while (message := await read_from_engine(self._reader)) is not None:
            yield message

    async def end(self, timeout: float) -> None:
        """Ask the process to save what it learned and end; kill it after ``timeout`` seconds."""
        self.send(Shutdown())
        try:
            async with asyncio.timeout(timeout):
                await self._process.wait()
        except TimeoutError:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def end_hung(self) -> None:
        """End a process that answers no more; where it hangs is in the log, if it can tell."""
        with contextlib.suppress(ProcessLookupError, TimeoutError):
            self._process.send_signal(DUMP_SIGNAL)
            async with asyncio.timeout(DUMP_S):
                await self._process.wait()
        with contextlib.suppress(ProcessLookupError):
            self._process.kill()

    async def kill(self) -> str:
        """Make sure that the process is gone; returns what is known of its end. Raises EngineError
        if it does not go."""
        if self._process.returncode is None:
            # Its end of the socket closes a moment before it can be waited for.
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    await self._process.wait()
        # With all that it has started (a compiler, say), which would go on and hold the output
        # open, for whose end ``wait`` waits as well.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        try:
            async with asyncio.timeout(UNKILLABLE_S):
                code = await self._process.wait()
        except TimeoutError:
            self._writer.close()
            raise EngineError(
                f"The engine process (pid {self.pid}) does not end, not even by SIGKILL: it waits"
                " for a driver or a disk.",
                "If it stays, restart the machine; when it is gone: atlasd resume",
            ) from None
        self._writer.close()
        with contextlib.suppress(ConnectionError):
            await self._writer.wait_closed()
        await self._output
        cause = f"signal {signal.Signals(-code).name}" if code < 0 else f"status {code}"
        if code == -signal.SIGKILL:
            cause += ", perhaps because the machine ran out of memory"
        last = next((line for line in reversed(self._tail) if line.strip()), "")
        return f"The engine process ended ({cause})." + (f" It said: {last}" if last else "")

    async def _follow_output(self) -> None:
        assert self._process.stdout is not None
        while True:
            try:
                line = await self._process.stdout.readline()
            except ValueError:  # a line longer than the buffer: skip it
                continue
            if not line:
                return
            text = line.decode("utf-8", "replace").rstrip()
            self._tail.append(text)
            log.info("engine: %s", text)
