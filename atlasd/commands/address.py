"""Where a client on this machine finds the daemon, as URLs have it."""

from __future__ import annotations

_ALL = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""Addresses that mean every one of this machine, and the one that is always among them."""


def reached_at(host: str) -> str:
    """The host to ask, of a daemon that listens on ``host``."""
    one = _ALL.get(host, host)
    return f"[{one}]" if ":" in one else one


def base_url(host: str, port: int) -> str:
    return f"http://{reached_at(host)}:{port}"
