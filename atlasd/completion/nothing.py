"""Why nothing was suggested: an empty screen has a reason, and ``atlasd why`` tells it."""

from __future__ import annotations

import time
import uuid
from dataclasses import dataclass, field

from atlasd.completion.record import Origin
from atlasd.completion.request import CompletionRequest

SUPERSEDED = "a newer request of the same document replaced this one before it was answered"
WITHDRAWN = "the editor withdrew the request before it was answered"


@dataclass(frozen=True)
class Nothing:
    """A request that was answered with nothing. ``origin`` is what was decoded, if anything."""

    request: CompletionRequest
    reason: str
    model: str
    origin: Origin | None = None
    total_ms: float = 0.0
    id: str = field(default_factory=lambda: uuid.uuid4().hex)
    at: float = field(default_factory=time.time)

    def why(self) -> dict[str, object]:
        """In the shape of ``record.Given.why``, with ``nothing`` for the reason."""
        request, origin = self.request, self.origin
        return {
            "id": self.id,
            "at": self.at,
            "nothing": self.reason,
            "source": "none",
            "model": self.model,
            "client": request.client,
            "path": request.path,
            "language": origin.language.id if origin else request.language,
            "repository": origin.repository if origin else request.repository,
            "trusted": request.trusted and (origin is None or origin.trusted),
            "text": "",
            "replace_right": 0,
            "total_ms": self.total_ms,
            **(origin.why if origin else {}),
        }


def reason_of(origin: Origin, remembered: bool) -> str:
    """Why what was decoded came to nothing."""
    raw, rules = str(origin.why["raw"]), ", ".join(origin.rules)
    if not raw:
        reason = "the model ended its text at once"
    elif not raw.strip():
        reason = "the model wrote nothing but white space"
    elif rules:
        reason = f"trimming left nothing of what the model wrote ({rules})"
    else:
        reason = "nothing of what the model wrote can stand here"
    return f"{reason}; that was found out earlier and is remembered" if remembered else reason
