"""``atlasd complete FILE:LINE:COL``: the ghost text an editor would show there, and its times."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from atlasd.commands.connection import Connection
from atlasd.commands.output import print_json, styled
from atlasd.errors import AtlasdError, RequestError
from atlasd.paths import expanded

NEAR = 1 << 18
"""Characters around the cursor that are sent: more than any prompt takes."""

CONTEXT_LINES = 4
PLACE = re.compile(r"(?P<file>.+?):(?P<line>\d+)(?::(?P<column>\d+))?$", re.DOTALL)


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="atlasd complete",
        description="Complete at a place in a file and show it as an editor would.",
    )
    made.add_argument(
        "place", metavar="FILE:LINE:COL", help="both count from 1; without COL: the line's end"
    )
    made.add_argument("--choices", type=int, default=1, help="several different suggestions")
    made.add_argument("--max-tokens", type=int, help="tokens of the suggestion, at most")
    made.add_argument("--json", action="store_true", help="the daemon's answer")
    return made


@dataclass(frozen=True)
class Cursor:
    """A place in a file's text."""

    path: Path
    text: str
    offset: int

    @property
    def prefix(self) -> str:
        return self.text[: self.offset]

    @property
    def suffix(self) -> str:
        return self.text[self.offset :]


def run(options: argparse.Namespace) -> int:
    """0 also when there is nothing to suggest, but not when nobody looked: while paused."""
    if options.max_tokens is not None and options.max_tokens < 1:
        raise RequestError("max_tokens must be at least 1.")
    cursor = locate(options.place)
    root = repository_root(cursor.path)
    body: dict[str, Any] = {
        "prefix": cursor.prefix[-NEAR:],
        "suffix": cursor.suffix[:NEAR],
        "path": str(cursor.path),
        "repository": str(root) if root else None,
        "trusted": True,
        "client": "cli",
        "trigger": "invoked",
        "choices": options.choices,
    }
    if options.max_tokens is not None:
        body["max_tokens"] = options.max_tokens
    answer = Connection().call("POST", "/atlasd/v1/complete", body)
    if options.json:
        print_json(answer)
        return 1 if answer.get("paused") else 0
    if answer.get("paused"):
        raise AtlasdError("atlasd is paused.", "Go on with: atlasd resume")
    if not answer["items"]:
        reason = Connection().call("GET", "/atlasd/v1/why", timeout=10).get("nothing")
        print(f"Nothing to suggest here: {reason}." if reason else "Nothing to suggest here.")
    for item in answer["items"]:
        print(shown(cursor, item))
        print(styled(f"\n{times(item)}", "dim"))
    if 0 < len(answer["items"]) < options.choices:
        print(styled(f"No more of the {options.choices} are different.", "dim"))
    return 0


def locate(place: str) -> Cursor:
    """The cursor that FILE:LINE:COL means. Raises RequestError with what is wrong."""
    found = PLACE.match(place)
    if found is None:
        raise RequestError(f"{place!r} is not FILE:LINE:COL.", "Such as: src/main.py:12:5")
    path = expanded(found["file"]).absolute()
    if path.exists() and not path.is_file():
        # A pipe is waited for, a device may never end.
        raise RequestError(f"{path} is not a file.")
    try:
        text = path.read_bytes().decode("utf-8-sig")  # no editor counts its mark as a column
    except FileNotFoundError:
        raise RequestError(f"There is no file {path}.") from None
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise RequestError(f"{path} cannot be read as text: it is not UTF-8.") from None
    # Editors count line feeds alone; splitlines would count form feeds as well.
    lines = re.split(r"(?<=\n)", text)
    number = int(found["line"])
    if not 1 <= number <= len(lines):
        raise RequestError(f"{path.name} has lines 1 to {len(lines)}, not {number}.")
    line = lines[number - 1].rstrip("\r\n")
    column = int(found["column"] or len(line) + 1)
    if not 1 <= column <= len(line) + 1:
        raise RequestError(f"Line {number} has columns 1 to {len(line) + 1}, not {column}.")
    return Cursor(path, text, sum(map(len, lines[: number - 1])) + column - 1)


def repository_root(path: Path) -> Path | None:
    """The repository a file belongs to: the nearest folder above it with a .git."""
    return next((folder for folder in path.parents if (folder / ".git").exists()), None)


def shown(cursor: Cursor, item: dict[str, Any]) -> str:
    """The lines around the cursor with the suggestion in them, as ghost text."""
    before = "\n".join(cursor.prefix.split("\n")[-CONTEXT_LINES:])
    rest = cursor.suffix[item["replace_right"] :]
    after = "\n".join(rest.split("\n")[:CONTEXT_LINES])
    return before + styled(item["text"], "green") + after.rstrip("\n")


def times(item: dict[str, Any]) -> str:
    """What the suggestion cost."""
    stats = item["stats"]
    if item["source"] != "model":
        return f"{item['total_ms']:.0f} ms, {item['source']}: no model call"
    timings = stats["timings"]
    drafted, accepted = timings["draft_n"], timings["draft_n_accepted"]
    parts = [
        f"{item['total_ms']:.0f} ms",
        f"prompt {stats.get('prompt_tokens', 0)} tokens ({stats.get('cached_tokens', 0)} cached)"
        f" in {stats.get('prefill_ms', 0.0):.0f} ms",
        f"{stats.get('output_tokens', 0)} tokens in {stats.get('decode_ms', 0.0):.0f} ms"
        f" ({timings['predicted_per_second']:.0f} tokens/s)",
    ]
    if drafted:
        parts.append(f"{accepted} of {drafted} drafted tokens accepted")
    return ", ".join(parts)
