"""Where the daemon listens. The bridge may not import atlasd, so the rule stands here too; a test
holds the two together."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path


def socket_path(environ: Mapping[str, str] = os.environ) -> Path:
    """The daemon's UNIX socket, from ``ATLASD_HOME`` or the XDG variables or their defaults."""
    if root := environ.get("ATLASD_HOME"):
        return Path(root).expanduser().absolute() / "run" / "atlasd.sock"
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    if runtime.startswith("/"):
        return Path(runtime) / "atlasd" / "atlasd.sock"
    home = Path(environ.get("HOME") or Path.home())
    state = environ.get("XDG_STATE_HOME", "")
    base = Path(state) if state.startswith("/") else home / ".local" / "state"
    return base / "atlasd" / "run" / "atlasd.sock"
