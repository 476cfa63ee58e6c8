"""``atlasd why``: how the last completion came about, from prompt to trimming to each step."""

from __future__ import annotations

import argparse
from typing import Any
from urllib.parse import quote

from atlasd.commands.connection import Connection
from atlasd.commands.output import print_json, styled, table

MOST_STEPS = 40


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="atlasd why",
        description="How a completion came about: the prompt's parts, trimming, and what was"
        " drafted at each step and why.",
    )
    made.add_argument("id", nargs="?", help="a completion's id; the last one without")
    made.add_argument("--json", action="store_true", help="everything, as one JSON object")
    return made


def run(options: argparse.Namespace) -> int:
    query = f"?id={quote(options.id, safe='')}" if options.id else ""
    found = Connection().call("GET", "/atlasd/v1/why" + query, timeout=10)
    if options.json:
        print_json(found)
    else:
        print(describe(found))
    return 0


def describe(found: dict[str, Any]) -> str:
    """What is known of a completion, section by section."""
    lines = []
    for name, value in found.items():
        if name != "steps" and value not in (None, "", [], {}):
            lines += _section(name, value)
    steps = found.get("steps") or []
    if steps:
        lines.append(styled(f"steps ({len(steps)})", "bold"))
        lines += [f"  {index:>3}  {_flat(step)}" for index, step in enumerate(steps[:MOST_STEPS])]
    if len(steps) > MOST_STEPS:
        lines.append(f"  … {len(steps) - MOST_STEPS} more; --json has them all")
    return "\n".join(lines)


def _section(name: str, value: Any) -> list[str]:
    title = styled(name.replace("_", " "), "bold")
    if isinstance(value, dict):
        return [title, table([[str(key), _flat(one)] for key, one in value.items()])]
    if isinstance(value, list) and any(isinstance(one, dict | list) for one in value):
        return [title, *(f"  {_flat(one)}" for one in value)]
    text = _flat(value)
    return [f"{title}  {text}"] if "\n" not in text else [title, text]


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(
            f"{key} {_flat(one)}" for key, one in value.items() if one not in (None, "", [], {})
        )
    if isinstance(value, list):
        return " ".join(_flat(one) for one in value)
    return f"{value:.4g}" if isinstance(value, float) else str(value)
