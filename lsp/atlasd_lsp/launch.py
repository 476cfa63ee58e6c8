"""Starting the daemon for an editor that found none running."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path


def default_command() -> list[str]:
    """``atlasd start``: the one installed beside this bridge, or else the one on PATH."""
    beside = Path(sys.executable).with_name("atlasd")
    command = str(beside) if beside.exists() else shutil.which("atlasd")
    return [command, "start", "--no-wait"] if command else []


async def told(what: str) -> str:
    """What ``atlasd status`` or ``atlasd why`` prints: text for people, which editors show."""
    command = default_command()[:1]
    if not command:
        return "atlasd is not on PATH; install it."
    process = await asyncio.create_subprocess_exec(
        *command,
        what,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "PYTHONIOENCODING": "utf-8"},
    )
    output, _ = await process.communicate()
    return output.decode(errors="replace").rstrip()


async def launch(command: Sequence[str]) -> str | None:
    """Run the command that starts the daemon; None when it worked, else what it said."""
    chosen = list(command) or default_command()
    if not chosen:
        return "atlasd is not on PATH; install it or set daemonCommand."
    try:
        process = await asyncio.create_subprocess_exec(
            *chosen,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )
    except OSError as error:
        return f"{chosen[0]} cannot be started: {error.strerror}."
    output, _ = await process.communicate()
    if process.returncode == 0:
        return None
    said = complaint(output.decode(errors="replace"))
    return said or f"{chosen[0]} ended with {process.returncode}."


def complaint(output: str) -> str:
    """What went wrong and what to do about it, in a line: the last thing a command said."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    starts = [number for number, line in enumerate(lines) if line.startswith("atlasd: ")]
    return " ".join(lines[starts[-1] if starts else -1 :]).removeprefix("atlasd: ")
