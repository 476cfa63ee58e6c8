"""What was learned of a repository, in the cache folder: weights, rows and a header.

Each file is replaced as a whole and the header is written last. What does not belong to the model,
the drafter or the tokenizer in use is not read.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import msgspec

from atlasd.learn.adapter import Adapter
from atlasd.learn.passages import pack, unpack
from atlasd.learn.replay import Replay
from atlasd.learn.versions import FORMAT, Key, Report, Version, Versions
from atlasd.paths import learned_folder_name

log = logging.getLogger(__name__)

HEADER, LIVE, GOOD, CANDIDATE = "header", "live.npz", "good.npz", "candidate.npz"
ROWS = ("recent.npz", "older.npz", "unseen.npz")


class Header(msgspec.Struct):
    """Whose files these are."""

    repository: str | None
    report: Report


class AdapterFiles:
    """The folder of all repositories' adapters under one tokenizer."""

    def __init__(self, folder: Path, key: Key) -> None:
        self.folder = folder
        self.key = key

    def of(self, repository: str | None) -> Path:
        return self.folder / learned_folder_name(repository)

    def save_versions(self, header: Header, versions: Versions) -> Iterator[None]:
        """Write the weights in use, the last good ones and the header, a file to a unit."""
        folder = self.of(header.repository)
        for name, version in ((LIVE, versions.live), (GOOD, versions.good)):
            if version is None:
                (folder / name).unlink(missing_ok=True)
            else:
                _write(folder / name, version.adapter.to_bytes())
            yield
        _write(folder / HEADER, msgspec.msgpack.encode(header))

    def save_rows(self, repository: str | None, replay: Replay) -> Iterator[None]:
        """Write what is trained and judged on, a file to a unit."""
        for name, part in zip(ROWS, (replay.recent, replay.older, replay.unseen), strict=True):
            _write(self.of(repository) / name, pack(part))
            yield

    def save_candidate(self, repository: str | None, candidate: Adapter) -> None:
        """Write the weights in training."""
        _write(self.of(repository) / CANDIDATE, candidate.to_bytes())

    def headers(self) -> list[Header]:
        """Of all repositories whose state belongs to this target, the last used ones last."""
        found: list[tuple[float, Header]] = []
        for path in self.folder.glob(f"*/{HEADER}"):
            try:
                header = msgspec.msgpack.decode(path.read_bytes(), type=Header)
                if header.report.format == FORMAT and self._same_target(header.report.key):
                    found.append((path.stat().st_mtime, header))
            except (OSError, msgspec.DecodeError):
                log.warning("%s is damaged and ignored", path)
        return [header for _, header in sorted(found, key=lambda item: item[0])]

    def load_versions(self, header: Header, hidden: int, vocab_size: int) -> Versions:
        """The versions of a repository; without weights if they belong to another drafter."""
        versions = Versions()
        versions.remember(header.report)
        if header.report.key == self.key:
            good = self._weights(header, GOOD, header.report.good, hidden, vocab_size)
            live = self._weights(header, LIVE, header.report.live, hidden, vocab_size)
            if live is None and header.report.live:
                # What was in use cannot be read: the one before it was good.
                live, good = good, None
            versions.live, versions.good = live, good
        return versions

    def load_rows(self, repository: str | None, replay: Replay, vocab_size: int) -> Iterator[None]:
        """Fill an empty ``replay``, a file to a unit."""
        for name, part in zip(ROWS, (replay.recent, replay.older, replay.unseen), strict=True):
            raw = _read(self.of(repository) / name)
            part.extend((unpack(raw, vocab_size) if raw else None) or [])
            yield

    def load_candidate(self, header: Header, hidden: int, vocab_size: int) -> Adapter | None:
        """The weights that were in training."""
        if header.report.key != self.key:
            return None
        raw = _read(self.of(header.repository) / CANDIDATE)
        return Adapter.from_bytes(raw, hidden, vocab_size) if raw else None

    def forget(self, repository: str | None) -> None:
        """Delete a repository's folder (None: all of them)."""
        folder = self.folder if repository is None else self.of(repository)
        shutil.rmtree(folder, ignore_errors=True)

    def _same_target(self, key: Key) -> bool:
        return (key.fingerprint, key.target) == (self.key.fingerprint, self.key.target)

    def _weights(
        self, header: Header, name: str, number: int, hidden: int, vocab_size: int
    ) -> Version | None:
        raw = _read(self.of(header.repository) / name) if number else None
        adapter = Adapter.from_bytes(raw, hidden, vocab_size) if raw else None
        return Version(number, adapter) if adapter is not None else None


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None


def _write(path: Path, content: bytes) -> None:
    """Raises OSError where there is no room, and leaves what was there."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        beside.write_bytes(content)
        beside.chmod(0o600)
        beside.replace(path)
    except OSError:
        beside.unlink(missing_ok=True)
        raise
