"""What an editor may set in ``initializationOptions``; all of it optional."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Options:
    """The bridge's settings, camelCase on the wire."""

    trusted: bool = field(
        default=True,
        metadata={"help": "The editor trusts this workspace: it may be indexed and learned from."},
    )
    start_daemon: bool = field(
        default=True, metadata={"help": "Start the daemon when none answers."}
    )
    daemon_command: tuple[str, ...] = field(
        default=(), metadata={"help": "Command that starts it; default: the atlasd beside us."}
    )
    reports_shown: bool = field(
        default=False,
        metadata={"help": "The client sends didShowCompletion; otherwise answered means shown."},
    )
    popup: bool = field(
        default=True,
        metadata={"help": "Offer textDocument/completion to clients without inline completion."},
    )
    max_tokens: int = field(
        default=0, metadata={"help": "Bound on a suggestion's tokens; 0: the daemon's own."}
    )
    editor: str = field(default="", metadata={"help": "The client's name, for the statistics."})


def parse_options(raw: object, before: Options | None = None) -> tuple[Options, list[str]]:
    """The options and, for each value that cannot be used, a sentence. Keys that are not there
    stay what they were ``before``; so does a value that cannot be used, but trust is withdrawn:
    who wrote anything there meant to say something."""
    before = before or Options()
    if raw is None:
        return before, []
    if not isinstance(raw, dict):
        return before, ["initializationOptions must be an object; the defaults are used."]
    values: dict[str, Any] = {}
    complaints: list[str] = []
    for one in dataclasses.fields(Options):
        head, *rest = one.name.split("_")
        key = head + "".join(part.title() for part in rest)
        if key not in raw:
            continue
        value = raw[key]
        if one.name == "daemon_command":
            if isinstance(value, list) and all(isinstance(part, str) for part in value):
                values[one.name] = tuple(value)
                continue
            complaints.append(f"{key} must be a list of strings, not {value!r}.")
        elif type(value) is type(one.default):
            values[one.name] = value
        else:
            wanted = type(one.default).__name__
            stays = (
                "the workspace is not trusted" if one.name == "trusted" else "it is left as it was"
            )
            complaints.append(f"{key} must be a {wanted}, not {value!r}; {stays}.")
            if one.name == "trusted":
                values[one.name] = False
    return dataclasses.replace(before, **values), complaints
