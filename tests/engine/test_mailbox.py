"""The engine's post: native steps see that a message waits without asking Python."""

from __future__ import annotations

import queue
import time
from types import SimpleNamespace
from typing import Any

import pytest

from atlasd.engine import service
from atlasd.engine.mailbox import Inbox
from atlasd.engine.protocol import AskStatus, Cancel, ToEngine


class Daemon:
    """The other end, which never closes: the process would end."""

    def __init__(self) -> None:
        self.sent: queue.SimpleQueue[ToEngine] = queue.SimpleQueue()

    def read(self) -> ToEngine:
        return self.sent.get()


def waits(inbox: Inbox) -> bool:
    end = time.monotonic() + 10
    while not inbox.arrived.value and time.monotonic() < end:
        time.sleep(0.001)
    return bool(inbox.arrived.value)


def test_a_message_is_seen_until_somebody_begins_to_look() -> None:
    daemon = Daemon()
    inbox = Inbox(daemon)  # type: ignore[arg-type]
    assert not inbox.arrived.value
    daemon.sent.put(Cancel(7))
    assert waits(inbox)
    inbox.arrived.value = 0
    assert inbox.next(0) == Cancel(7)
    assert not inbox.arrived.value
    daemon.sent.put(AskStatus(1))
    assert waits(inbox)
    assert len(inbox) == 1


def test_the_engine_that_serves_is_interrupted_by_its_own_post(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Made(Exception):
        """The service has got as far as its engine."""

    def engine(*_: Any, **given: Any) -> None:
        assert given["interrupt"] is inbox.arrived
        raise Made

    inbox = Inbox(Daemon())  # type: ignore[arg-type]
    served: Any = SimpleNamespace(loaded=SimpleNamespace(decoder=None), costs=None)
    post: Any = SimpleNamespace(put=None)
    nothing: Any = None
    monkeypatch.setattr(service, "Engine", engine)
    monkeypatch.setattr(service, "clock_of", lambda loaded: None)
    with pytest.raises(Made):
        service.Service(served, nothing, [], nothing, inbox, post, drafting=False)
