"""Confidence: the calibrated probability that the next drafted token is accepted."""

from __future__ import annotations


class Confidence:
    """One online-learned map from a drafted token's features to its acceptance probability."""

    def snapshot(self) -> dict[str | None, bytes]:
        """Learned state by repository (None: shared by all), for the store."""
        return {}

    def restore(self, repository: str | None, payload: bytes) -> None:
        """Take over a state that ``snapshot`` gave; one that does not fit is ignored."""
