"""Where atlasd's files live: the XDG folders, or everything below ``ATLASD_HOME``."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

from atlasd.errors import RequestError


@dataclass(frozen=True)
class Paths:
    """Folders and files of one installation. Nothing is created by asking for a path."""

    config: Path
    data: Path
    cache: Path
    state: Path
    runtime: Path

    @property
    def config_file(self) -> Path:
        return self.config / "config.toml"

    @property
    def database(self) -> Path:
        return self.data / "atlasd.db"

    @property
    def socket(self) -> Path:
        return self.runtime / "atlasd.sock"

    @property
    def token(self) -> Path:
        return self.runtime / "token"

    @property
    def daemon_json(self) -> Path:
        """pid, port and version of the running daemon."""
        return self.runtime / "daemon.json"

    @property
    def lock(self) -> Path:
        """Held by the daemon for as long as it lives."""
        return self.runtime / "daemon.lock"

    @property
    def pointer(self) -> Path:
        """Names the runtime folder of the daemon that was started last, from wherever: a shell
        without ``XDG_RUNTIME_DIR`` (cron, sudo, some of ssh) would look for it elsewhere."""
        return self.state / "runtime"

    @property
    def log(self) -> Path:
        return self.state / "atlasd.log"

    def create(self) -> None:
        """Make the folders; all are the user's alone (0700)."""
        for folder in (self.config, self.data, self.cache, self.state, self.runtime):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.runtime.chmod(0o700)


def expanded(path: str | Path) -> Path:
    """The path with the home folder that a ``~`` stands for. Raises RequestError where there is
    none: of a user who does not exist, or where nothing says whose home it would be."""
    try:
        return Path(path).expanduser()
    except RuntimeError:
        raise RequestError(
            f"{path}: no home folder of that name is known.", "Write the path in full, or set HOME."
        ) from None


def paths(environ: dict[str, str] | None = None) -> Paths:
    """The folders in force, from ``ATLASD_HOME`` or the XDG variables or their defaults; with the
    runtime folder of the daemon that runs, if one does."""
    found = own_paths(environ)
    if not is_locked(found) and (running := named_by(found)) is not None:
        return running
    return found


def is_locked(folders: Paths) -> bool:
    """Whether a daemon of these folders lives. Asking does not disturb it."""
    try:
        with open(folders.lock, encoding="utf-8") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # there is none, or it is another user's
        return False
    return False


def named_by(folders: Paths) -> Paths | None:
    """The folders with the runtime folder that the pointer names, if that is another one, of the
    same user, and a daemon lives in it."""
    try:
        named = Path(folders.pointer.read_text(encoding="utf-8").strip())
        if not named.is_absolute() or named == folders.runtime:
            return None
    except (OSError, ValueError):
        return None
    other = replace(folders, runtime=named)
    return other if _uid_of(named) == os.getuid() and is_locked(other) else None


def own_paths(environ: dict[str, str] | None = None) -> Paths:
    """The folders as this environment has them, whatever runs."""
    env = os.environ if environ is None else environ
    if root := env.get("ATLASD_HOME"):
        base = expanded(root).absolute()
        return Paths(
            config=base / "config",
            data=base / "data",
            cache=base / "cache",
            state=base / "state",
            runtime=base / "run",
        )
    home = Path(env.get("HOME") or expanded("~"))

    def xdg(variable: str, default: str) -> Path:
        # The XDG specification: relative paths in these variables are to be ignored.
        value = env.get(variable, "")
        return (Path(value) if value.startswith("/") else home / default) / "atlasd"

    state = xdg("XDG_STATE_HOME", ".local/state")
    # Behind `su` it is still the other user's folder, which the specification forbids.
    runtime = env.get("XDG_RUNTIME_DIR", "")
    ours = runtime.startswith("/") and _uid_of(Path(runtime)) in (None, os.getuid())
    return Paths(
        config=xdg("XDG_CONFIG_HOME", ".config"),
        data=xdg("XDG_DATA_HOME", ".local/share"),
        cache=xdg("XDG_CACHE_HOME", ".cache"),
        state=state,
        runtime=Path(runtime) / "atlasd" if ours else state / "run",
    )


def _uid_of(folder: Path) -> int | None:
    """Whose folder it is; None if there is none."""
    try:
        return folder.stat().st_uid
    except OSError:
        return None


def learned_folder_name(repository: str | None) -> str:
    """The folder, below ``drafting/TOKENIZER/adapter`` in the cache, of what the adapter learned
    from a repository."""
    return hashlib.sha256((repository or "").encode()).hexdigest()[:24]


def forget_learned(cache: Path, repository: str | None) -> None:
    """Delete the files of what drafting learned from a repository (None: from all), for every
    model. For when no engine runs that could be asked to."""
    drafting = cache / "drafting"
    if repository is None:
        shutil.rmtree(drafting, ignore_errors=True)
        return
    for folder in drafting.glob(f"*/adapter/{learned_folder_name(repository)}"):
        shutil.rmtree(folder, ignore_errors=True)
