"""``atlasd doctor``: check everything, and say for each fault what mends it."""

from __future__ import annotations

import argparse

from atlasd.commands import checks
from atlasd.commands.output import print_json, styled

MARKS = {"ok": ("✓", "green"), "note": ("·", "yellow"), "bad": ("✗", "red")}


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="atlasd doctor",
        description="Check everything and say what to mend. Exit status: 0 nothing is wrong, 1"
        " something is.",
    )
    made.add_argument("--json", action="store_true", help="one JSON object")
    return made


def run(options: argparse.Namespace) -> int:
    """0 when nothing is wrong."""
    found = checks.run_all()
    bad = sum(one.verdict == "bad" for one in found)
    if options.json:
        print_json({"ok": not bad, "checks": [one.as_dict() for one in found]})
        return 1 if bad else 0
    width = max(len(one.name) for one in found)
    for one in found:
        mark, colour = MARKS[one.verdict]
        print(f"{styled(mark, colour)} {one.name:<{width}}  {one.message}")
        if one.mend:
            print(f"  {'':<{width}}  {styled('→ ' + one.mend, colour)}")
    print()
    print("Nothing is wrong." if not bad else f"{bad} to mend.")
    return 1 if bad else 0
