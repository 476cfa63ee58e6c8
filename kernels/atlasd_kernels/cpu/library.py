"""Finding and loading the native library."""

from __future__ import annotations


def available() -> tuple[bool, str]:
    """Whether the native library loads here, and the reason if it does not."""
    return False, "not built yet"


def instruction_sets() -> list[str]:
    """Code paths this processor can run, best first; the last is always ``portable``."""
    return []
