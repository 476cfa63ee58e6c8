"""``atlasd status``: what the daemon is doing."""

from __future__ import annotations

import argparse
from typing import Any

from atlasd.commands.address import base_url
from atlasd.commands.connection import Connection
from atlasd.commands.output import count, counted, duration, print_json, size, styled, table
from atlasd.errors import NotRunningError

COLOURS = {
    "ready": "green",
    "loading": "yellow",
    "failed": "red",
    "stopped": "cyan",
    "paused": "yellow",
}

SHARES_IN_A_LINE = 4

NO_STORE = "the database cannot be opened; see: atlasd doctor"


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="atlasd status",
        description="What the daemon is doing. Exit status: 0 running, 1 model failed,"
        " 3 not running.",
    )
    made.add_argument("--json", action="store_true", help="one JSON object")
    return made


def run(options: argparse.Namespace) -> int:
    """0 running, 1 when its model failed, 3 not running."""
    try:
        status = Connection().call("GET", "/atlasd/v1/status", timeout=10)
    except NotRunningError:
        if options.json:
            print_json({"state": "not running"})
            return 3
        raise
    if options.json:
        print_json(status)
    else:
        print(describe(status))
    return 1 if status["state"] == "failed" else 0


def describe(status: dict[str, Any]) -> str:
    """The status for people."""
    state, http = status["state"], status["http"]
    shown = {"stopped": "idle (the model is unloaded and comes back on request)"}.get(state, state)
    port = base_url(http["host"], http["port"]) if http["port"] else "off"
    rows = [
        ["state", styled(shown, COLOURS.get(state, "bold"))],
        ["model", _model(status["model"])],
        ["daemon", f"{status['version']}, pid {status['pid']}, up {duration(status['uptime_s'])}"],
        ["socket", status["socket"]],
        ["http", port],
        ["drafting", "on" if status["drafting"] else "off"],
        ["served", _served(status["served"])],
    ]
    if state == "loading":
        rows.insert(1, ["loading", f"{status['stage']} ({status['fraction']:.0%})"])
    if status["error"]:
        rows.insert(1, ["error", f"{status['error']} {status['hint'] or ''}".rstrip()])
    if state == "ready" and status["engine"] is None:
        rows.append(["engine", styled(silent(status), "red")])
    if not status["store"]:
        rows.append(["store", styled(NO_STORE, "red")])
    # What the running engine holds counts drafters and adapters, too.
    if memory := (status["engine"] or status["model"]).get("memory"):
        held = [f"{name} {size(used)}" for name, used in memory.items()]
        for at in range(0, len(held), SHARES_IN_A_LINE):
            rows.append(["" if at else "memory", ", ".join(held[at : at + SHARES_IN_A_LINE])])
    for source, known in ((status["engine"] or {}).get("sources") or {}).items():
        rows.append(["drafter", f"{source}: {_drafter(known)}"])
    for one in status["repositories"]:
        trust = "" if one["trusted"] else ", not trusted: not read"
        rows.append(
            [
                "repository",
                f"{one['root']} ({counted(one['files'], 'file')},"
                f" {count(one['tokens'])} tokens, {one['state']}{trust})",
            ]
        )
        if one.get("notice"):
            rows.append(["", styled(one["notice"], "yellow")])
    return table(rows, indent="")


def silent(status: dict[str, Any]) -> str:
    """What is known of an engine that does not answer."""
    so_far = duration(status["engine_silent_s"])
    return (
        f"pid {status['engine_pid']} does not answer ({so_far} so far); if it hangs, it is started"
        " again"
    )


def _drafter(known: dict[str, float]) -> str:
    """What became of one drafter's tokens since the engine started."""
    drafted = known.get("drafted", 0)
    if not drafted:
        return "nothing drafted yet"
    return f"{count(known.get('accepted', 0))} of {count(drafted)} tokens accepted"


def _model(model: dict[str, Any]) -> str:
    if "backend" not in model:
        return str(model["name"])
    return (
        f"{model['name']} on {model['backend']} ({model['dtype']}), {model['slots']} slots of"
        f" {model['slot_tokens']} tokens"
    )


def _served(served: dict[str, Any]) -> str:
    speed = served["output_tokens"] / served["decode_s"] if served["decode_s"] else 0.0
    drafted, accepted = sum(served["drafted"].values()), sum(served["accepted"].values())
    share = f", {accepted / drafted:.0%} of {count(drafted)} drafted accepted" if drafted else ""
    return (
        f"{counted(served['requests'], 'request')}, {counted(served['output_tokens'], 'token')}"
        + (f" at {speed:.0f} tokens/s" if speed else "")
        + share
    )
