"""What one check of ``atlasd doctor`` found."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True)
class Finding:
    """``bad`` needs mending; ``note`` is worth knowing."""

    name: str
    verdict: Literal["ok", "note", "bad"]
    message: str
    mend: str = ""

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)
