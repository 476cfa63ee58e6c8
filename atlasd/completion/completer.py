"""From a cursor to a suggestion: the one way every editor and API takes."""

from __future__ import annotations

from collections.abc import Mapping

from atlasd.completion.ports import Engine, Store, TextTokenizer, Workspace
from atlasd.completion.request import Completion, CompletionRequest


class Superseded(Exception):
    """A newer request for the same document replaced this one."""


class Completer:
    """Completes at cursors; one per daemon and loaded model.

    ``model`` is its name, as shown to users; ``config`` holds the model folder's configuration
    (``generation_config.json`` merged over ``config.json``), of which the key ``atlasd`` and
    ``max_position_embeddings`` are read; ``slot_tokens`` bounds prompt plus answer.
    """

    def __init__(
        self,
        engine: Engine,
        tokenizer: TextTokenizer,
        workspace: Workspace | None,
        store: Store | None,
        model: str,
        *,
        config: Mapping[str, object] | None = None,
        slot_tokens: int | None = None,
    ) -> None:
        raise RuntimeError("interface only; filled in the next commits")

    async def complete(self, request: CompletionRequest) -> Completion | None:
        """The suggestion at the cursor, or None where there is nothing worth showing.

        Raises Superseded when a newer request with the same ``document`` came in, EngineError
        when the engine failed. Cancelling the task cancels the stream.
        """
        raise RuntimeError("interface only")

    async def choices(self, request: CompletionRequest, count: int) -> list[Completion]:
        """Up to ``count`` different suggestions, the one ``complete`` gives first."""
        raise RuntimeError("interface only")

    async def fate(self, id: str, fate: str, accepted_length: int | None = None) -> None:
        """What became of a suggestion: shown, accepted, accepted_word, accepted_line, dismissed
        or superseded. ``accepted_length`` counts characters from the start, cumulatively."""
        raise RuntimeError("interface only")

    def why(self, id: str | None = None) -> dict[str, object] | None:
        """How a suggestion (the last one without ``id``) came about: prompt parts with token
        counts, trimming rules, statistics, and ``stream`` to ask the engine about its steps."""
        raise RuntimeError("interface only")

    @property
    def stats(self) -> dict[str, float]:
        """Counters since the start: requests, answered from which source, superseded, empty."""
        raise RuntimeError("interface only")

    def clear(self) -> None:
        """Forget suggestions kept in memory and end what is decoded ahead (pause, purge)."""
        raise RuntimeError("interface only")
