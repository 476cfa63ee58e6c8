"""The repositories whose adapters are in memory, and their way to the disk and back."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic

import msgspec

from atlasd.draft.adaptable import Adaptable
from atlasd.learn.files import AdapterFiles, Header
from atlasd.learn.repository import Adapted
from atlasd.learn.training import Trainer
from atlasd.learn.versions import FORMAT, Report

log = logging.getLogger(__name__)

KIND = "adapter"
"""The ``kind`` of the ``Learned`` and ``Restore`` messages that carry a ``Report``."""

REPOSITORIES = 6
"""In memory; the one used least recently is written to disk and let go."""

SAVE_EVERY_S = 30.0

WARM_BUDGET = 4096
"""Tokens read for a repository that was known in an earlier run."""


class Repositories:
    """What was learned of each repository; iterating gives the one used last first."""

    def __init__(self, model: Adaptable, files: AdapterFiles | None) -> None:
        """``files``: where to keep what is learned; None: nowhere."""
        self._model = model
        self._files = files
        self._known: dict[str | None, Adapted] = {}
        self._leaving: dict[str | None, Adapted] = {}
        """Let go of, but not written yet."""
        self._saved_at = monotonic()
        self._headers = {header.repository: header for header in files.headers()} if files else {}
        for header in list(self._headers.values())[-REPOSITORIES:]:
            self.of(header.repository)

    def __iter__(self) -> Iterator[Adapted]:
        return reversed(list(self._known.values()))

    def belong_to(self, target: str) -> None:
        """What is learned from now on belongs to another target; what is on disk of repositories
        that are not in memory belongs to the one before."""
        self._headers.clear()
        if self._files is not None:
            self._files.key = msgspec.structs.replace(self._files.key, target=target)

    def get(self, repository: str | None) -> Adapted | None:
        """What is in memory of a repository."""
        return self._known.get(repository)

    def of(self, repository: str | None) -> Adapted:
        """What is known of a repository, which is now the one used last."""
        one = self._known.pop(repository, None) or self._leaving.pop(repository, None)
        if one is None:
            one = Adapted(repository)
            header = self._headers.get(repository)
            if header is not None and self._files is not None:
                one.versions = self._files.load_versions(
                    header, self._model.hidden, self._model.vocab_size
                )
                one.loaded = False
        self._known[repository] = one
        if len(self._known) > REPOSITORIES:
            oldest = next(iter(self._known))
            self._leaving[oldest] = self._known.pop(oldest)
        return one

    def load(self, one: Adapted) -> Iterator[None]:
        """Rows and candidate of an earlier run."""
        one.loaded = True
        header = self._headers.get(one.repository)
        if self._files is None or header is None:
            return
        # Most of it was read before; what has changed since earns its own.
        one.warmup.left = min(one.warmup.left, WARM_BUDGET)
        yield from self._files.load_rows(one.repository, one.replay, self._model.vocab_size)
        candidate = self._files.load_candidate(header, self._model.hidden, self._model.vocab_size)
        if candidate is not None:
            one.trainer = Trainer(candidate, self._model.rows)
        yield

    def waiting(self) -> Adapted | None:
        """One that should be written now: it was let go of, or has changed some time ago."""
        for one in self._leaving.values():
            return one
        if monotonic() - self._saved_at > SAVE_EVERY_S:
            return next((one for one in self if one.unsaved), None)
        return None

    def saving(self, one: Adapted) -> Iterator[None]:
        """Write all of it, a file to a unit."""
        self._saved_at = monotonic()
        one.unsaved = False
        if self._files is not None and one.loaded:
            with _if_there_is_room(one):
                yield from self._files.save_rows(one.repository, one.replay)
                if one.trainer is not None:
                    self._files.save_candidate(one.repository, one.trainer.adapter)
                    yield
                yield from self.saving_versions(one)
        if self._leaving.get(one.repository) is one:
            del self._leaving[one.repository]

    def saving_versions(self, one: Adapted) -> Iterator[None]:
        """Write the versions alone, a file to a unit."""
        if self._files is None:
            return
        report = one.versions.report(self._files.key, one.replay.rows, one.steps)
        header = self._headers[one.repository] = Header(one.repository, report)
        with _if_there_is_room(one):
            yield from self._files.save_versions(header, one.versions)
        yield

    def save(self) -> None:
        """Write everything that has changed to the folder."""
        unsaved = [one for one in self._known.values() if one.unsaved]
        for one in [*self._leaving.values(), *unsaved]:
            for _ in self.saving(one):
                pass

    def learned(self) -> list[tuple[str, str | None, bytes]]:
        """(kind, repository, payload) for the store: versions and what became of them."""
        if self._files is None:
            return []
        return [
            (
                KIND,
                one.repository,
                msgspec.msgpack.encode(
                    one.versions.report(self._files.key, one.replay.rows, one.steps)
                ),
            )
            for one in self._known.values()
            if one.steps or one.versions.latest
        ]

    def restore(self, repository: str | None, payload: bytes) -> None:
        """Take back what ``learned`` gave; the weights themselves are in the folder."""
        try:
            report = msgspec.msgpack.decode(payload, type=Report)
        except msgspec.DecodeError:
            return
        if report.format == FORMAT and self._files is not None and report.key == self._files.key:
            self.of(repository).versions.remember(report)

    def forget(self, repository: str | None) -> None:
        """Drop all that was learned of a repository (None: of all), the files as well."""
        for held in (self._known, self._leaving, self._headers):
            if repository is None:
                held.clear()
            else:
                held.pop(repository, None)
        if self._files is not None:
            self._files.forget(repository)


@contextmanager
def _if_there_is_room(one: Adapted) -> Iterator[None]:
    """A disk that is full or may not be written costs what was learned since, and nothing else."""
    try:
        yield
    except OSError as error:
        one.unsaved = True
        log.warning("what was learned of %s could not be written: %s", one.repository, error)
