"""What is remembered of a suggestion: how it came about, who has it, and its row in the store."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import msgspec

from atlasd.completion.decoding import Decoded, Decoding
from atlasd.completion.languages import Language
from atlasd.completion.request import Completion, CompletionRequest
from atlasd.store.rows import StoredCompletion
from atlasd.workspace.secrets import mask


@dataclass(frozen=True)
class Origin:
    """Where a suggestion came from, without the prompt itself."""

    why: dict[str, object]
    language: Language
    repository: str | None
    prompt_tokens: int
    output_tokens: int
    max_tokens: int
    """As many were asked for."""
    finish_reason: str
    rules: tuple[str, ...]
    trusted: bool
    ahead: bool = False
    """Decoded before it was asked for."""

    def serves(self, max_tokens: int) -> bool:
        """Whether it is what such a request would get: neither longer, nor cut off shorter."""
        cut_off = self.finish_reason == "length" and max_tokens > self.max_tokens
        return self.output_tokens <= max_tokens and not cut_off


def origin_of(decoding: Decoding, decoded: Decoded, template: str, ahead: bool) -> Origin:
    """The origin of what a decoding came to; ``why`` is ready for JSON."""
    built = decoding.built
    parts = [{"name": part.name, "tokens": len(part.tokens)} for part in built.prompt.parts]
    prompt_tokens = sum(len(part.tokens) for part in built.prompt.parts)
    why: dict[str, object] = {
        "template": template,
        "prompt": parts,
        "prompt_tokens": prompt_tokens,
        "prompt_hash": built.prompt.hash,
        "raw": decoded.raw,
        "trimmed": decoded.text,
        "trimmed_by": list(decoded.rules),
        "finish_reason": decoded.finish_reason,
        "stats": msgspec.structs.asdict(decoded.stats),
        "stream": decoded.stream,
    }
    return Origin(
        why,
        built.language,
        built.repository,
        prompt_tokens,
        decoded.stats.output_tokens,
        decoding.request.max_tokens,
        decoded.finish_reason,
        decoded.rules,
        built.trusted,
        ahead,
    )


@dataclass
class Given:
    """A suggestion that a client has. ``stored`` once it has a row of its own."""

    completion: Completion
    request: CompletionRequest
    origin: Origin
    stored: bool = False
    at: float = field(default_factory=time.time)

    @property
    def trusted(self) -> bool:
        """Whether it may be kept: both that it was asked for, and where it came from."""
        return self.request.trusted and self.origin.trusted

    def why(self) -> dict[str, object]:
        """How it came about, ready for JSON."""
        done = self.completion
        return {
            "id": done.id,
            "at": self.at,
            "source": done.source,
            "model": done.model,
            "client": self.request.client,
            "path": self.request.path,
            "language": self.origin.language.id,
            "repository": self.origin.repository,
            "trusted": self.trusted,
            "text": done.text,
            "replace_right": done.replace_right,
            "total_ms": done.total_ms,
            **self.origin.why,
        }

    def row(self) -> StoredCompletion:
        """What the store keeps of it: its secrets masked, also those that only the text left of
        it tells."""
        done, left = self.completion, self.request.prefix
        return StoredCompletion(
            id=done.id,
            text=mask(left + done.text)[len(left) :],
            repository=self.origin.repository,
            path=self.request.path,
            language=self.origin.language.id,
            client=self.request.client,
            model=done.model,
            source=done.source,
            trusted=self.trusted,
            output_tokens=done.stats.output_tokens,
            drafted=sum(done.stats.drafted.values()),
            accepted_drafts=sum(done.stats.accepted.values()),
            total_ms=done.total_ms,
            decode_ms=done.stats.decode_ms,
            created=self.at,
        )
