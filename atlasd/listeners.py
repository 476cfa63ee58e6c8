"""Where the daemon is reached: the lock that makes it the only one, its socket, its TCP port."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import socket
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from atlasd.errors import AtlasdError, ConfigError
from atlasd.paths import Paths, named_by

FURTHER_PORTS = 8
"""Ports that are tried after the default one, if another program has that."""

LOCK_ATTEMPTS, LOCK_PAUSE_S = 5, 0.02

SOCKET_PATH_BYTES = 107
"""``sun_path`` in sockaddr_un, less its end mark (unix(7)); 103 on macOS."""


class AlreadyRunning(AtlasdError):
    """Another daemon holds the lock. ``running`` is what it says of itself."""

    def __init__(self, running: Running | None) -> None:
        who = f" (pid {running.pid}, {running.model})" if running else ""
        super().__init__(f"atlasd is already running{who}.", "See: atlasd status")
        self.running = running


@dataclass(frozen=True)
class Running:
    """``daemon.json``: what the running daemon says of itself."""

    pid: int
    version: str
    model: str
    host: str | None
    port: int | None
    socket: str
    started: float

    def write(self, paths: Paths) -> None:
        draft = paths.daemon_json.with_name(f".daemon.json.{os.getpid()}")
        draft.write_text(json.dumps(asdict(self)) + "\n", encoding="utf-8")
        draft.chmod(0o600)
        draft.replace(paths.daemon_json)

    @classmethod
    def read(cls, paths: Paths) -> Running | None:
        """None if there is no such file or it makes no sense."""
        try:
            content: dict[str, Any] = json.loads(paths.daemon_json.read_text(encoding="utf-8"))
            return cls(**content)
        except (OSError, ValueError, TypeError):
            return None


class Lock:
    """Held by the one daemon of these folders, for as long as its process lives.

    The kernel drops it when the process ends in whatever way, so a socket or ``daemon.json`` found
    while holding it is stale for certain.
    """

    def __init__(self, paths: Paths) -> None:
        self._path = paths.lock
        # A bare descriptor, never closed: whoever sees the lock free sees the process gone.
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600)
        if not self._taken():
            os.close(self._descriptor)
            raise AlreadyRunning(Running.read(paths))
        if (other := _point_to(paths)) is not None:
            os.close(self._descriptor)
            raise AlreadyRunning(Running.read(other))
        # Its number may be another process's by now, which `atlasd stop` must not end.
        paths.daemon_json.unlink(missing_ok=True)

    def _taken(self) -> bool:
        for attempt in range(LOCK_ATTEMPTS):
            # Whoever asks whether a daemon lives holds the lock for a moment.
            time.sleep(LOCK_PAUSE_S if attempt else 0)
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return True
        return False

    def release(self) -> None:
        """For whoever only keeps daemons away for a moment; a daemon never lets go."""
        os.close(self._descriptor)

    @property
    def in_place(self) -> bool:
        """Whether the locked file is still the one others would find. It is not after the runtime
        folder was removed, as systemd does when its user has logged out."""
        try:
            return os.path.samestat(os.stat(self._path), os.fstat(self._descriptor))
        except OSError:
            return False


def _point_to(paths: Paths) -> Paths | None:
    """Tell where this daemon is, to those whose environment says otherwise; or where another one
    is that was faster. Where the folder cannot be written, neither can be told."""
    with contextlib.suppress(OSError):
        descriptor = os.open(paths.pointer, os.O_WRONLY | os.O_CREAT, 0o600)
        with open(descriptor, "w", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_EX)  # of two that start at once, one sees the other
            if (other := named_by(paths)) is not None:
                return other
            file.truncate()
            file.write(f"{paths.runtime}\n")
    return None


def check_socket_path(path: Path) -> None:
    """Raise ConfigError where the system cannot have a socket at ``path``."""
    if len(os.fsencode(path)) > SOCKET_PATH_BYTES:
        raise ConfigError(
            f"The path of the socket is too long for the system ({path}).",
            "Set XDG_RUNTIME_DIR or ATLASD_HOME to a shorter folder.",
        )


def listen_on_socket(path: Path) -> socket.socket:
    """The UNIX socket, for this user alone from its first moment. Call while holding the lock."""
    check_socket_path(path)
    with contextlib.suppress(FileNotFoundError):
        path.unlink()
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        listener.bind(os.fspath(path))
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(before)
    return listener


def listen_on_tcp(host: str, port: int, *, exactly: bool) -> list[socket.socket]:
    """Listeners on ``host``; on loopback of both IP versions where there are both.

    Without ``exactly`` the next ports are tried where this one is taken, so that a llama.cpp
    server on its usual port does not keep the editors from being served.
    """
    for candidate in range(port, port + (1 if exactly else FURTHER_PORTS)):
        try:
            return _listen(host, candidate)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise ConfigError(
                    f"Cannot listen on {host}:{candidate}: {error.strerror}.",
                    "Choose another server.host or server.port.",
                ) from None
    raise ConfigError(
        f"Port {port} is used by {_user_of(port)}.",
        "Choose another with --port, or 0 for none.",
    )


def _listen(host: str, port: int) -> list[socket.socket]:
    listeners = [_bind(host, port)]
    if host in ("127.0.0.1", "localhost"):
        # Some clients try ::1 first for "localhost"; without IPv6 they fall back by themselves.
        with contextlib.suppress(OSError):
            listeners.append(_bind("::1", port))
    return listeners


def _bind(host: str, port: int) -> socket.socket:
    family, kind, _, _, address = socket.getaddrinfo(
        host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listener = socket.socket(family, kind)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind(address)
        # Two sockets can be bound to one port with SO_REUSEADDR; only one can listen.
        listener.listen(128)
    except OSError:
        listener.close()
        raise
    return listener


def _user_of(port: int) -> str:
    """The program that listens on a port, where the system tells."""
    import psutil  # type: ignore[import-untyped]

    with contextlib.suppress(psutil.Error, OSError):
        for one in psutil.net_connections("tcp"):
            if (
                one.status == psutil.CONN_LISTEN
                and one.laddr
                and one.laddr.port == port
                and one.pid
            ):
                return f"{psutil.Process(one.pid).name()} (pid {one.pid})"
    return "another program"
