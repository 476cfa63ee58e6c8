"""Where the daemon listens. The bridge may not import atlasd, so the rule stands here too; a test
holds the two together."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Mapping
from pathlib import Path


def socket_path(environ: Mapping[str, str] = os.environ) -> Path:
    """The socket of the daemon that runs, or where the next one will listen: from ``ATLASD_HOME``
    or the XDG variables or their defaults."""
    runtime, state = _folders(environ)
    if not _is_locked(runtime) and (named := _named_in(state)) is not None:
        runtime = named
    return runtime / "atlasd.sock"


def _folders(environ: Mapping[str, str]) -> tuple[Path, Path]:
    """The runtime and the state folder, as this environment has them."""
    if root := environ.get("ATLASD_HOME"):
        base = _expanded(root).absolute()
        return base / "run", base / "state"
    home = Path(environ.get("HOME") or _expanded("~"))
    given = environ.get("XDG_STATE_HOME", "")
    state = (Path(given) if given.startswith("/") else home / ".local" / "state") / "atlasd"
    runtime = environ.get("XDG_RUNTIME_DIR", "")
    ours = runtime.startswith("/") and _uid_of(Path(runtime)) in (None, os.getuid())
    return (Path(runtime) / "atlasd" if ours else state / "run"), state


def _is_locked(runtime: Path) -> bool:
    """Whether a daemon lives there."""
    try:
        with open(runtime / "daemon.lock", encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _named_in(state: Path) -> Path | None:
    """The runtime folder of a daemon that was started from an environment with another one."""
    try:
        named = Path((state / "runtime").read_text(encoding="utf-8").strip())
    except (OSError, ValueError):
        return None
    ours = named.is_absolute() and _uid_of(named) == os.getuid()
    return named if ours and _is_locked(named) else None


def _uid_of(folder: Path) -> int | None:
    """Whose folder it is; None if there is none."""
    try:
        return folder.stat().st_uid
    except OSError:
        return None


def _expanded(path: str) -> Path:
    try:
        return Path(path).expanduser()
    except RuntimeError:
        # Nobody listens there; whoever starts the daemon says what is wrong.
        return Path(path)
