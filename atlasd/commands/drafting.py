"""``atlasd drafting on|off``: the text stays the same, only the time changes."""

from __future__ import annotations

import argparse

from atlasd.commands.connection import Connection


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="atlasd drafting",
        description="Switch drafting on or off until the daemon ends. The text stays the same.",
    )
    made.add_argument("switch", choices=("on", "off"))
    return made


def run(options: argparse.Namespace) -> int:
    Connection().call("POST", "/atlasd/v1/drafting", {"on": options.switch == "on"}, timeout=10)
    print(f"Drafting is {options.switch}.")
    return 0
