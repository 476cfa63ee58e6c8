"""The engine process: ``python -m atlasd.engine.worker FD``, started by ``engine.client``.

One thread loads the model and runs the step loop; two more read the socket and write what it
had no room for. The process ends when it is told to and when the daemon is gone. It imports no
torch itself: the decoder does, where there are no kernels of our own.
"""

from __future__ import annotations

import faulthandler
import gc
import logging
import os
import signal
import socket
import sys
from time import monotonic

from atlasd.engine.calibration import KIND, Calibrations
from atlasd.engine.framing import EngineEnd
from atlasd.engine.loading import Progress, load
from atlasd.engine.mailbox import Inbox, Outbox
from atlasd.engine.protocol import DUMP_SIGNAL, Failed, Load, Loading, Restore
from atlasd.engine.service import Service
from atlasd.errors import AtlasdError
from atlasd.paths import Paths, paths

log = logging.getLogger(__name__)

PROGRESS_EVERY_S = 0.05

SWITCH_S = 0.0005
"""The thread that reads the socket has the interpreter after so long, though the step loop runs."""


def run(end: EngineEnd, folders: Paths) -> None:
    """Load what the daemon asks for and serve it."""
    inbox, outbox = Inbox(end), Outbox(end)
    calibrations, restored = Calibrations(), list[Restore]()
    message = inbox.next()
    while not isinstance(message, Load):
        if isinstance(message, Restore):
            restored.append(message)
            if message.kind == KIND:
                calibrations.restore(message.payload)
        message = inbox.next()
    try:
        served = load(message, calibrations, folders, _progress(outbox))
        service = Service(
            served, calibrations, restored, folders, inbox, outbox, drafting=message.drafting
        )
    except Exception as error:
        outbox.put(_failed(error))
    else:
        # What loading leaves is no garbage: looking through it again holds a step up for 13 ms.
        gc.collect()
        gc.freeze()
        inbox.serving = True
        service.serve()
    outbox.close()


def _progress(outbox: Outbox) -> Progress:
    said = ("", 0.0)

    def progress(stage: str, fraction: float) -> None:
        nonlocal said
        now = monotonic()
        if stage != said[0] or now - said[1] > PROGRESS_EVERY_S:
            said = stage, now
            outbox.put(Loading(stage, fraction))

    return progress


def _failed(error: Exception) -> Failed:
    if isinstance(error, AtlasdError):
        return Failed(error.message, error.hint)
    if isinstance(error, MemoryError):
        return Failed("The model does not fit in memory.", "Choose a smaller one.")
    log.error("the model cannot be loaded", exc_info=error)
    return Failed(f"The model cannot be loaded: {error}.", "See the log.")


def main() -> None:
    """Entry point; the argument is the number of the inherited socket."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    faulthandler.register(DUMP_SIGNAL, chain=True)
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    sys.setswitchinterval(SWITCH_S)
    run(EngineEnd(socket.socket(fileno=int(sys.argv[1]))), paths())
    logging.shutdown()
    # Libraries may take seconds to unload; the daemon waits for the memory.
    os._exit(0)


if __name__ == "__main__":
    main()
