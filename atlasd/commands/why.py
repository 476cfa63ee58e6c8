"""``atlasd why``: how the last completion came about, from prompt to trimming to each step."""

from __future__ import annotations

import argparse
from textwrap import indent
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
    """What is known of a completion, from the prompt to the last step."""
    lines = _heading(found)
    if "prompt" not in found:
        return "\n".join(lines)
    lines += [
        "",
        styled(f"prompt: {found['prompt_tokens']} tokens, template {found['template']}", "bold"),
        table([[f"{part['tokens']:>6}", part["name"]] for part in found["prompt"]]),
        "",
        styled("text" if found["raw"] == found["text"] else "the model's own text", "bold"),
        indent(found["raw"], "  | "),
    ]
    if found["raw"] != found["text"] and not found.get("nothing"):
        rules = ", ".join(found["trimmed_by"])
        lines += [
            styled(f"trimmed by {rules}" if rules else "given", "bold"),
            indent(found["text"], "  | "),
        ]
    lines += ["", styled("cost", "bold"), table(_costs(found["stats"]))]
    return "\n".join(lines + _steps(found["steps"]))


def _heading(found: dict[str, Any]) -> list[str]:
    lines = []
    if "id" in found:
        place = found.get("path") or "an unnamed buffer"
        lines.append(styled(f"{place}, for {found.get('client') or 'a client'}", "bold"))
    if found.get("nothing"):
        lines.append(styled(f"nothing was suggested: {found['nothing']}", "yellow"))
    elif "id" in found:
        lines.append(f"{found['source']}, ended by {found['finish_reason']}")
    if "id" in found:
        lines.append(f"{found['total_ms']:.0f} ms, id {found['id']}")
    if found.get("trusted") is False:
        lines.append(
            "Nothing of it is kept: the workspace is not trusted, or the file is one that is "
            "ignored or never read."
        )
    return lines


def _costs(stats: dict[str, Any]) -> list[list[str]]:
    return [[name.replace("_", " "), _flat(value)] for name, value in stats.items() if value]


def _steps(steps: list[dict[str, Any]]) -> list[str]:
    if not steps:
        return []
    lines = ["", styled(f"{len(steps)} steps: lookahead, drafter, draft, why", "bold")]
    for index, step in enumerate(steps[:MOST_STEPS]):
        chosen = step.get("chosen") or {}
        drafted = repr(chosen["text"]) if chosen.get("text") else ""
        source = chosen.get("source", "") if step.get("lookahead") else ""
        lines.append(
            f"  {index:>3}  {step.get('lookahead', 0):>2}  {source:<10}"
            f" {drafted:<24} {step.get('reason', '')}"
        )
    if len(steps) > MOST_STEPS:
        lines.append(f"  … {len(steps) - MOST_STEPS} more; --json has them all")
    return lines


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_flat(one)}" for key, one in value.items())
    return f"{value:.4g}" if isinstance(value, float) else str(value)
