"""``atlasd models``: the bundled one, those on this disk, and well-known ones that fit here."""

from __future__ import annotations

import argparse
import difflib
import re
from typing import Any

from atlasd.commands.hardware import Memory, memory
from atlasd.commands.output import print_json, size, styled, table
from atlasd.errors import AtlasdError
from atlasd.paths import expanded, paths

WELL_KNOWN = (
    ("Qwen/Qwen2.5-Coder-0.5B", 0.49),
    ("Qwen/Qwen2.5-Coder-1.5B", 1.54),
    ("Qwen/Qwen2.5-Coder-3B", 3.09),
    ("Qwen/Qwen2.5-Coder-7B", 7.62),
    ("Qwen/Qwen2.5-Coder-14B", 14.8),
    ("Qwen/Qwen2.5-Coder-32B", 32.8),
    ("deepseek-ai/deepseek-coder-1.3b-base", 1.35),
    ("deepseek-ai/deepseek-coder-6.7b-base", 6.74),
    ("JetBrains/Mellum-4b-base", 4.02),
    ("ByteDance-Seed/Seed-Coder-8B-Base", 8.25),
)
"""Code models of the families that are served and that fill in the middle, with their parameters
in thousand millions."""

BYTES_PER_PARAMETER = 2
SPARE = 1.2
"""Weights, and a fifth more for slots and scratch."""


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="atlasd models", description="Models that `atlasd start --model NAME` takes here."
    )
    made.add_argument("--json", action="store_true", help="one JSON object")
    return made


def run(options: argparse.Namespace) -> int:
    held = memory()
    here = [*_bundled(), *_cached(), *_elsewhere()]
    found = {"memory": held.described, "here": here, "known": known(held)}
    if options.json:
        print_json(found)
    else:
        print(describe(found))
    return 0


def meant(name: str) -> str:
    """What somebody may have meant who gave a name that no model has; empty if nobody knows. Ollama
    has other names for the same models (``qwen2.5-coder:7b``)."""
    from atlasd.models import elsewhere
    from atlasd.models.hub import cached_models

    if name == "bundled" or expanded(name).exists() or name.startswith(("/", ".", "~")):
        return ""
    here = [*(one for one, _ in cached_models()), *(one for one, _ in elsewhere.found())]
    known = [*(one for one, _ in WELL_KNOWN), *here]
    if name in known:
        return ""
    spelt = {_spelt(one): one for one in known} | {_spelt(one.split("/")[-1]): one for one in known}
    close = difflib.get_close_matches(_spelt(name), spelt, n=1, cutoff=0.8)
    return f"Did you mean {spelt[close[0]]}? " if close else ""


def _spelt(name: str) -> str:
    return re.sub(r"[^a-z0-9.]+", "-", name.lower())


def _bundled() -> list[dict[str, Any]]:
    from atlasd.models.locate import find_model

    try:
        files = find_model(None, paths())
    except AtlasdError as error:
        return [{"name": "bundled", "bytes": 0, "usable": False, "why": error.message}]
    return [{"name": "bundled", "bytes": files.weight_bytes, "usable": True, "why": ""}]


def _cached() -> list[dict[str, Any]]:
    from atlasd.models.hub import cached_models
    from atlasd.models.locate import folder_model

    listed = []
    for name, folder in cached_models():
        try:
            files = folder_model(folder, name, "hub")
            why = unserved(dict(files.config))
            listed.append(
                {"name": name, "bytes": files.weight_bytes, "usable": not why, "why": why}
            )
        except AtlasdError as error:
            listed.append({"name": name, "bytes": 0, "usable": False, "why": error.message})
    return listed


def _elsewhere() -> list[dict[str, Any]]:
    """What Ollama, LM Studio and llama.cpp have fetched."""
    from atlasd.models import elsewhere
    from atlasd.models.config import GGUF_FAMILIES
    from atlasd.models.gguf_file import architecture_of

    listed = []
    for name, path in elsewhere.found():
        architecture = architecture_of(path) or "no GGUF"
        why = "" if architecture in GGUF_FAMILIES else f"{architecture} is not served"
        row = {"name": name, "bytes": path.stat().st_size, "usable": not why, "why": why}
        listed.append(row)
    return listed


def unserved(config: dict[str, Any]) -> str:
    """Why a model of this configuration cannot be served; empty if it can."""
    from atlasd.models.config import FAMILIES

    architecture = (config.get("architectures") or ["unknown"])[0]
    return "" if architecture in FAMILIES else f"{architecture} is not served"


def known(held: Memory) -> list[dict[str, Any]]:
    """The well-known models with what they need and whether that is here."""
    listed = []
    for name, billions in WELL_KNOWN:
        needs = billions * 1e9 * BYTES_PER_PARAMETER * SPARE
        listed.append({"name": name, "bytes": int(needs), "fits": needs <= held.bytes})
    return listed


def describe(found: dict[str, Any]) -> str:
    """The lists for people."""
    lines = [styled("On this machine", "bold")]
    rows = []
    for one in found["here"]:
        held = size(one["bytes"]) if one["bytes"] else ""
        rows.append([one["name"], held, "" if one["usable"] else styled(one["why"], "yellow")])
    lines += [table(rows), "", styled(f"Well-known, for {found['memory']}", "bold")]
    lines.append(
        table(
            [
                [
                    one["name"],
                    f"about {size(one['bytes'])}",
                    styled("fits", "green") if one["fits"] else styled("too large", "dim"),
                ]
                for one in found["known"]
            ]
        )
    )
    lines += ["", "Start one with: atlasd start --model NAME (downloaded if it is not here)"]
    return "\n".join(lines)
