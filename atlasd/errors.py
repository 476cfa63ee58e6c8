"""What can go wrong in a way a user can mend. Every message says what happened and what to do."""

from __future__ import annotations


class AtlasdError(Exception):
    """An error with a one-line explanation; the CLI prints it without a traceback.

    ``hint`` says what the user can do about it; it is shown after the message.
    """

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".rstrip()


class ConfigError(AtlasdError):
    """The configuration file or an option has a value that cannot be used."""


class ModelError(AtlasdError):
    """A model is missing, of an unsupported architecture, damaged or too large."""


class EngineError(AtlasdError):
    """The engine process failed or is not ready; requests in flight end with it."""


class RequestError(AtlasdError):
    """A client asked for something impossible (HTTP 400)."""


def not_text(error: UnicodeEncodeError) -> RequestError:
    """What a terminal or a folder's name holds need not be text; this says which part is not."""
    before, behind = error.object[: error.start], error.object[error.end :]
    part = error.object[before.rfind('"') + 1 : error.end] + behind.split('"', 1)[0]
    return RequestError(f"This is not text in UTF-8: {part!r}.")


class StoreError(AtlasdError):
    """The database cannot be opened, migrated or written."""


class NotRunningError(AtlasdError):
    """No daemon answers on the socket."""
