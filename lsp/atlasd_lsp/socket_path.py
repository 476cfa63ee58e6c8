"""Where the daemon listens. The bridge may not import atlasd, so the rule stands here too; a test
holds the two together."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def socket_path(environ: Mapping[str, str] = os.environ) -> Path:
    """The daemon's UNIX socket, from ``ATLASD_HOME`` or the XDG variables or their defaults."""
    if root := environ.get("ATLASD_HOME"):
        return _expanded(root).absolute() / "run" / "atlasd.sock"
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/"):
        return Path(runtime) / "atlasd" / "atlasd.sock"
    home = Path(environ.get("HOME") or _expanded("~"))
    state = environ.get("XDG_STATE_HOME", "")
    base = Path(state) if state.startswith("/") else home / ".local" / "state"
    return base / "atlasd" / "run" / "atlasd.sock"


def _expanded(path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:
        # Nobody listens there; whoever starts the daemon says what is wrong.
        return Path(path)
