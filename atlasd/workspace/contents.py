"""From a file, or an open buffer, to its entry in the repository and its segment: the least work
that is needed, in short steps."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from atlasd.workspace.analysis import Analysis, analyse, content_hash
from atlasd.workspace.delivery import Batch
from atlasd.workspace.language import language_of
from atlasd.workspace.never import MAX_BYTES
from atlasd.workspace.reading import decoded, masked, read_bytes
from atlasd.workspace.scan import Found, allowed
from atlasd.workspace.task import Look, Task
from atlasd.workspace.tokencache import TokenCache, cache_file, remove_oldest
from atlasd.workspace.tokens import StepwiseTokenizer

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Read:
    """A file's text, analysed and still to be tokenised. ``read_at`` 0: an open buffer's."""

    found: Found
    hash: bytes
    analysis: Analysis
    text: str
    read_at: int


class Contents:
    """Used by the indexing thread alone. ``pause`` returns when work may go on."""

    def __init__(self, pause: Callable[[], None], caches: Path | None) -> None:
        self._pause = pause
        self._caches = caches
        self.tokenizer: StepwiseTokenizer | None = None

    @property
    def key(self) -> str:
        return self.tokenizer.key if self.tokenizer else ""

    @property
    def step_characters(self) -> int:
        """How much text is best finished together."""
        return self.tokenizer.step_characters if self.tokenizer else 1 << 14

    def look(self, batch: Batch, look: Look) -> Read | None:
        """Find out what there is to do about a file: text to tokenise, or nothing (any more)."""
        task, found = batch.task, look.found
        repository = task.repository
        entry = repository.entry(found.path)
        if entry and entry.key != self.key:
            entry = None
        if entry and entry.unchanged(found) and not (look.content or look.again):
            return None
        cached = task.cache.get(found.path) if task.cache else None
        if cached and cached.matches(found) and not look.content:
            batch.add(found, cached.hash, cached.analysis, cached.tokens)
            return None
        read_at = int(time.time())
        data = read_bytes(repository.root, found.path)
        raw = None if data is None else decoded(data)
        if data is None or raw is None:
            self.drop(batch, found.path)
            return None
        self._pause()
        hash = content_hash(data)
        if entry and entry.hash == hash and not look.again:
            repository.put_tokens(found, entry.tokens, self.key)
            return None
        if cached and cached.hash == hash:
            analysis, text = cached.analysis, None
        else:
            text = masked(raw, self._pause)
            analysis = analyse(text, found.language, self._pause)
        before = repository.entry(found.path)
        if look.alone and before and before.hash != hash:
            text = masked(raw, self._pause) if text is None else text
            repository.note_saved(
                found.path, text, before.lines, analysis.lines, found.mtime_ns / 1e9
            )
        if cached and cached.hash == hash:
            batch.add(found, hash, cached.analysis, cached.tokens)
            return None
        return Read(found, hash, analysis, text or "", read_at)

    def finish(self, batch: Batch, reads: list[Read]) -> None:
        """Tokenise what was read, together, and put it into the batch."""
        encoded: list[bytes | None] = [None] * len(reads)
        if self.tokenizer:
            encoded = list(self.tokenizer.encode([read.text for read in reads], self._pause))
        for read, tokens in zip(reads, encoded, strict=True):
            saved = read.read_at > 0
            if batch.task.cache and tokens is not None and saved:
                self._keep(batch.task, read, tokens)
            batch.add(read.found, read.hash, read.analysis, tokens, saved=saved)
        reads.clear()

    def drop(self, batch: Batch, path: str) -> None:
        if batch.task.repository.drop(path):
            batch.drop(path)

    def note(self, task: Task, path: str, text: str) -> None:
        """An open buffer has changed: it is what the file's text is from now on."""
        repository = task.repository
        if len(text) <= MAX_BYTES and allowed(repository.root, repository.rules, path):
            repository.note_buffer(path, masked(text))

    def index_buffer(self, batch: Batch, path: str, text: str) -> None:
        """An open buffer that rests becomes the segment of its file, saved or not."""
        repository = batch.task.repository
        if len(text) > MAX_BYTES or not allowed(repository.root, repository.rules, path):
            return
        hash = content_hash(text.encode("utf-8", "replace"))
        entry = repository.entry(path)
        if entry and entry.hash == hash and entry.key == self.key:
            return
        safe = masked(text, self._pause)
        found = repository.find(path) or Found(path, language_of(path) or "", len(text), 0)
        analysis = analyse(safe, found.language, self._pause)
        self.finish(batch, [Read(found, hash, analysis, safe, read_at=0)])

    def open_cache(self, task: Task) -> None:
        """The kept tokens of the tokenizer in use."""
        if self._caches is None or not self.key or not task.keep:
            return
        path = cache_file(self._caches, task.repository.root, self.key)
        if task.cache and task.cache.path == path:
            return
        task.close_cache()
        try:
            task.cache = TokenCache(path, self._pause)
            remove_oldest(self._caches)
        except OSError as error:
            logger.warning("Tokens are not kept: %s", error)

    def _keep(self, task: Task, read: Read, tokens: bytes) -> None:
        assert task.cache is not None
        try:
            task.cache.put(read.found, read.hash, tokens, read.analysis, read.read_at)
        except OSError as error:
            task.close_cache()
            logger.warning("Tokens are no longer kept: %s", error)
