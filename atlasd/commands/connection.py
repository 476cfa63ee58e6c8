"""How commands talk to the daemon: HTTP over its UNIX socket, with the standard library alone."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
from collections.abc import Iterator
from typing import Any

from atlasd.errors import AtlasdError, NotRunningError, not_text
from atlasd.listeners import check_socket_path
from atlasd.paths import Paths, paths


class _SocketHTTP(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float | None) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        try:
            self.sock.connect(self._path)
        except OSError:
            self.close()
            raise


class Connection:
    """The running daemon. Every call raises NotRunningError where there is none, and AtlasdError
    with the daemon's own words where it refuses."""

    def __init__(self, folders: Paths | None = None) -> None:
        socket_path = (folders or paths()).socket
        check_socket_path(socket_path)
        self._path = str(socket_path)

    def call(
        self, method: str, path: str, body: Any = None, timeout: float | None = None
    ) -> dict[str, Any]:
        """The answer to one request."""
        answer: dict[str, Any] = _value(b"".join(self._read(method, path, body, timeout)))
        return answer

    def text(self, path: str, timeout: float | None = None) -> str:
        """The answer to a GET, as text."""
        return b"".join(self._read("GET", path, None, timeout)).decode()

    def lines(self, method: str, path: str, body: Any = None) -> Iterator[dict[str, Any]]:
        """The objects of a newline-delimited answer, as they come."""
        for line in self._read(method, path, body):
            if line.strip():
                value = _value(line)
                _raise_for(value)
                yield value

    def events(self, method: str, path: str, body: Any = None) -> Iterator[dict[str, Any]]:
        """The data of server-sent events, as they come."""
        for line in self._read(method, path, body):
            if line.startswith(b"data: ") and line.strip() != b"data: [DONE]":
                value = _value(line[6:])
                _raise_for(value)
                yield value

    def _read(
        self, method: str, path: str, body: Any, timeout: float | None = None
    ) -> Iterator[bytes]:
        """The answer's lines."""
        with contextlib.closing(_SocketHTTP(self._path, timeout)) as connection:
            response = self._asked(connection, method, path, body)
            try:
                yield from response
            except TimeoutError:
                raise AtlasdError("The daemon does not answer.", "See: atlasd doctor") from None
            except (http.client.HTTPException, ConnectionError):
                raise AtlasdError(
                    "The daemon ended the connection.", "See: atlasd status"
                ) from None

    def _asked(
        self, connection: _SocketHTTP, method: str, path: str, body: Any
    ) -> http.client.HTTPResponse:
        """The answer's head; a refusal is raised."""
        payload = None if body is None else _encoded(body)
        try:
            headers = {"Content-Type": "application/json", "Connection": "close"}
            connection.request(method, path, payload, headers)
            response = connection.getresponse()
        except (FileNotFoundError, ConnectionRefusedError):
            raise NotRunningError("No daemon is running.", "Start it with: atlasd start") from None
        except PermissionError:
            raise AtlasdError(
                f"The socket {self._path} belongs to another user.", "See: atlasd doctor"
            ) from None
        except TimeoutError:
            raise AtlasdError("The daemon does not answer.", "See: atlasd doctor") from None
        except (http.client.HTTPException, OSError) as error:
            raise AtlasdError(f"The daemon ended the connection ({error}).") from None
        if response.status >= 400:
            with contextlib.suppress(ValueError):
                _raise_for(json.loads(response.read()))
            raise AtlasdError(f"The daemon answered {response.status}.")
        return response


def _encoded(body: Any) -> bytes:
    try:
        return json.dumps(body, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise not_text(error) from None


def _value(raw: bytes) -> Any:
    """What JSON says; the daemon writes whole lines, unless it ends in the middle of one."""
    try:
        return json.loads(raw)
    except ValueError:
        raise AtlasdError("The daemon ended in its answer.", "See: atlasd status") from None


def _raise_for(value: Any) -> None:
    if isinstance(value, dict) and isinstance(value.get("error"), dict):
        raise AtlasdError(value["error"].get("message") or "The daemon refused.")
