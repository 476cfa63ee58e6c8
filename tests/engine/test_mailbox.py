"""The engine's post: native steps see that a message waits without asking Python, and what the
engine says is on its way when it has been said."""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest

from atlasd.engine import service
from atlasd.engine.framing import EngineEnd, frame
from atlasd.engine.mailbox import Inbox, Outbox
from atlasd.engine.protocol import AskStatus, Cancel, Learned, Loading, Shutdown, ToEngine


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


def test_a_message_that_comes_while_drafters_learn_waits_for_one_unit_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now, units = 0.0, 0
    daemon = Daemon()

    def idle(milliseconds: float) -> bool:
        """As the learner does it: units of two milliseconds, whole ones."""
        nonlocal now, units
        end = now + milliseconds / 1e3
        while units < 100:
            now, units = now + 0.002, units + 1
            if units == 1:
                daemon.sent.put(Shutdown())
                assert waits(serving._inbox)
            if now >= end:
                return True
        return False

    nothing = SimpleNamespace(due=False, busy=False, cancel_all=lambda: None, close=lambda: None)
    serving: Any = service.Service.__new__(service.Service)
    serving._inbox = Inbox(daemon)  # type: ignore[arg-type]
    serving._inbox.serving = True  # or the process would end
    serving._drafting = SimpleNamespace(idle=idle, save=lambda: None)
    serving._engine = serving._door = nothing
    serving._served = SimpleNamespace(loaded=SimpleNamespace(decoder=nothing))
    serving._backlog, serving._looks, serving._unsaved, serving._ending = [], 0, False, False
    serving._announce = serving._save = lambda: None
    monkeypatch.setattr(service, "monotonic", lambda: now)
    serving.serve()
    assert units == 1


@contextmanager
def outbox() -> Iterator[tuple[Outbox, socket.socket]]:
    """An outbox and the daemon's end of its socket."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        yield Outbox(EngineEnd(theirs)), ours


def test_what_is_said_is_on_its_way_at_once() -> None:
    message = Loading("weights", 0.5)
    with outbox() as (said, daemon):
        said.put(message)
        assert daemon.recv(1 << 16, socket.MSG_DONTWAIT) == frame(message)


def test_what_the_socket_has_no_room_for_waits_in_order_and_blocks_nobody() -> None:
    messages = [Learned("kind", str(n), bytes([n]) * (n * 40_000)) for n in range(1, 12)]
    said = b"".join(map(frame, messages))
    with outbox() as (box, daemon):
        for message in messages:
            box.put(message)
        got = bytearray()
        while len(got) < len(said):
            got += daemon.recv(1 << 16)
        assert got == said
        box.close()
        box.put(messages[0])
        assert daemon.recv(1 << 16, socket.MSG_DONTWAIT) == frame(messages[0])


def test_who_closes_waits_until_all_is_sent() -> None:
    message = Learned("kind", None, bytes(1 << 20))
    with outbox() as (box, daemon):
        box.put(message)
        received = bytearray()

        def read() -> None:
            while piece := daemon.recv(1 << 16):
                received.extend(piece)

        reader = threading.Thread(target=read)
        reader.start()
        box.close()
        box._end._socket.shutdown(socket.SHUT_WR)
        reader.join()
        assert received == frame(message)
