"""Who may call: the same user on the socket; on TCP, whoever holds the token and is no web page.

A browser on this machine reaches loopback too, so a name that resolves here (DNS rebinding) or a
form that posts here must be refused before anything is read.
"""

from __future__ import annotations

import hmac
import os
import secrets
import socket
import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from aiohttp import web

from atlasd.errors import ConfigError
from atlasd.server.errors import HTTPError

PUBLIC_PATHS = ("/health",)
"""Answered without a token: it tells nothing but that someone is here."""

LOOPBACK = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class Access:
    """The rules of the TCP listener. ``hosts`` are exact values of the Host header."""

    token: str
    token_required: bool
    hosts: frozenset[str]
    origins: tuple[str, ...]

    def allows_origin(self, origin: str) -> bool:
        """``scheme://*`` in the list allows every origin of that scheme."""
        return any(
            origin == allowed
            or (allowed.endswith("://*") and origin.startswith(allowed.removesuffix("*")))
            for allowed in self.origins
        )


def host_names(host: str, port: int, further: Iterable[str] = ()) -> frozenset[str]:
    """Values of Host under which this listener may be addressed."""
    names = {"127.0.0.1", "localhost", "[::1]"}
    if host not in LOOPBACK and host not in ("0.0.0.0", "::"):
        names.add(f"[{host}]" if ":" in host else host)
    values = {f"{name}:{port}" for name in names}
    for name in further:
        has_port = name.rpartition("]")[2].count(":") == 1
        values.add((name if has_port else f"{name}:{port}").lower())
    if port == 80:
        values |= {value.removesuffix(":80") for value in values if value.endswith(":80")}
    return frozenset(values)


def check_bind(host: str, token_required: bool) -> None:
    """Listening beyond loopback without a token would hand the machine's code to the network."""
    if host not in LOOPBACK and not token_required:
        raise ConfigError(
            f"server.host = {host!r} is not loopback and server.token is off.",
            "Turn server.token on, or listen on 127.0.0.1.",
        )


def secret_token(*files: Path) -> str:
    """The token, the same from start to start, in every one of ``files`` (0600).

    The first file is where it lives, the others are copies. A file that others could read or
    that is not ours is not trusted: a new token is made.
    """
    token = _read_private(files[0]) or secrets.token_urlsafe(32)
    for file in files:
        if _read_private(file) != token:
            _write_private(file, token)
    return token


def known_token(*files: Path) -> str | None:
    """The token that is in one of ``files``, if it is nobody else's; nothing is written."""
    return next((token for file in files if (token := _read_private(file))), None)


def _read_private(file: Path) -> str | None:
    try:
        descriptor = os.open(file, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None
    with os.fdopen(descriptor, encoding="ascii", errors="replace") as opened:
        facts = os.fstat(opened.fileno())
        if facts.st_uid != os.getuid() or facts.st_mode & 0o077:
            return None
        token = opened.read(1024).strip()
    return token if len(token) >= 32 and token.isascii() and token.isprintable() else None


def _write_private(file: Path, token: str) -> None:
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as opened:
        opened.write(token + "\n")
    draft.replace(file)


def on_socket(request: web.Request) -> bool:
    """Whether the request came over the UNIX socket."""
    connection = _connection(request)
    return connection is not None and connection.family == socket.AF_UNIX


def _connection(request: web.Request) -> socket.socket | None:
    if request.transport is None:
        return None
    connection: socket.socket | None = request.transport.get_extra_info("socket")
    return connection


def check_peer(request: web.Request) -> None:
    """Serve only this user's own processes on the UNIX socket."""
    connection = _connection(request)
    if connection is None or peer_uid(connection) != os.getuid():
        raise HTTPError(403, "This socket belongs to another user.", code="wrong_user")


def peer_uid(connection: socket.socket) -> int | None:
    """The user at the other end of a UNIX socket; None where the system cannot tell."""
    if sys.platform == "linux":
        size = struct.calcsize("3i")
        raw = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
        _, uid, _ = struct.unpack("3i", raw)
        return int(uid)
    if sys.platform == "darwin":
        # struct xucred { u_int cr_version; uid_t cr_uid; … } by LOCAL_PEERCRED at level 0.
        raw = connection.getsockopt(0, 1, 76)
        return int(struct.unpack_from("2I", raw)[1])
    return None


def check_tcp(request: web.Request, access: Access, path: str) -> None:
    """Refuse what a web page or a stranger could send. ``path`` is without the token prefix."""
    hosts = request.headers.getall("Host", [])
    if len(hosts) != 1 or hosts[0].lower() not in access.hosts:
        raise HTTPError(
            403,
            "This Host is not served here.",
            "Use 127.0.0.1 or localhost, or add the name to server.allowed_hosts.",
            code="host_not_allowed",
        )
    origin = request.headers.get("Origin")
    if origin is not None and not access.allows_origin(origin):
        raise HTTPError(
            403,
            "Web pages of this Origin may not call.",
            "Add it to server.allowed_origins if it should.",
            code="origin_not_allowed",
        )
    if origin is None and request.headers.get("Sec-Fetch-Site", "none") not in (
        "none",
        "same-origin",
    ):
        raise HTTPError(403, "Requests from web pages are refused.", code="cross_site")
    preflight = request.method == "OPTIONS" and origin is not None
    if access.token_required and path not in PUBLIC_PATHS and not preflight:
        _check_token(request, access.token)


def _check_token(request: web.Request, token: str) -> None:
    scheme, _, bearer = request.headers.get("Authorization", "").partition(" ")
    given = [
        _token_in(request.path),
        request.headers.get("X-Api-Key", ""),
        bearer.strip() if scheme.lower() == "bearer" else "",
    ]
    # Every candidate is compared, and in constant time, so that timing tells nothing.
    matches = [hmac.compare_digest(one.encode("utf-8", "replace"), token.encode()) for one in given]
    if any(matches):
        return
    if any(given):
        raise HTTPError(
            401, "This token is not the daemon's.", "See: atlasd connect", code="invalid_api_key"
        )
    raise HTTPError(
        401,
        "A token is needed: Authorization: Bearer TOKEN, or /t/TOKEN/ before the path.",
        "See: atlasd connect",
        code="missing_api_key",
    )


def _token_in(path: str) -> str:
    """The token of ``/t/TOKEN/…``, whether or not anything is served there: who asks for what is
    not there is to be told that, and not that a token is missing."""
    return path.split("/", 3)[2] if path.startswith("/t/") else ""


def check_content_type(request: web.Request) -> None:
    """Only JSON on POST, or nothing: browsers send other types across origins without asking."""
    said = request.method == "POST" and request.body_exists
    if said and request.content_type != "application/json":
        raise HTTPError(
            415, "The body must be JSON: Content-Type: application/json.", code="not_json"
        )
