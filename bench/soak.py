"""Long use of one daemon: what grows, what fails, and whether drafting ever changed a text.

    python -m bench.soak [--minutes 5] [--purge 10] [--seed 1] [--model NAME]

In copies of this repository and of a part of the standard library two developers write function
bodies over LSP without ever pausing, and one to six clients ask over the socket: of their requests
a third is withdrawn on the way, and half of the others asked again without drafting. Branches
are switched each minute, what is stored is purged now and then, and every fourth minute nobody asks
anything, so that idle time is learned in. Each minute ends with a row. It fails where a text
differed, an answer was an error, or the daemon's log has a warning.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

import psutil

from bench.demo.editor import Editor
from bench.holes import copy_repository
from bench.report import table
from bench.served import Served, serve
from bench.soak_work import Clients, Seen, develop

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("asyncio", "email", "importlib", "json", "unittest")
BRANCHES = ("one", "other")
MOST_CLIENTS = 6
REST_EVERY = 4
"""Of so many minutes one is quiet."""
MINUTE_S = 60.0
SHOWN = 20
"""Complaints that are printed."""

HEADER = ("minute (clients)", "daemon MB", "engine MB", "bridges MB", "open files", "threads",
          "database KB", "cache MB", "answers", "withdrawn", "tokens/s", "ms, medians")  # fmt: skip


def repositories(folder: Path) -> dict[Path, list[Path]]:
    """Two repositories with two branches each, and the Python files of each."""
    library = Path(statistics.__file__).parent
    here, there = folder / "atlasd", folder / "library"
    files: dict[Path, list[Path]] = {here: copy_repository(ROOT, here), there: []}
    for file in sorted(file for name in PACKAGES for file in (library / name).rglob("*.py")):
        copy = there / file.relative_to(library)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(file.read_bytes())
        files[there].append(copy)
    for root, known in files.items():
        git(root, "init", "-q")
        git(root, "add", "-A")
        git(root, "commit", "-qm", "all")
        git(root, "branch", "-M", BRANCHES[0])
        git(root, "switch", "-qc", BRANCHES[1])
        for number, file in enumerate(known):
            if number % 5 == 0:
                file.write_text(file.read_text().replace("self", "this"))
            elif number % 17 == 0:
                file.unlink()
        git(root, "commit", "-qam", "other")
    return files


def git(root: Path, *words: str) -> None:
    who = ("-c", "user.name=soak", "-c", "user.email=soak@localhost")
    subprocess.run(["git", *who, *words], cwd=root, check=True, capture_output=True)


class Soak:
    """One daemon under load."""

    def __init__(self, served: Served, files: dict[Path, list[Path]], seed: int) -> None:
        self.served, self.files = served, files
        self.seen = Seen()
        self.total: Counter[str] = Counter()
        self.rows: list[list[object]] = []
        self._chance = random.Random(seed)
        self._busy, self._over = asyncio.Event(), asyncio.Event()
        self._tokens = 0

    async def run(self, minutes: int, purge: int) -> None:
        """Load for so many minutes; a row for each."""
        editors = {root: Editor(root) for root in self.files}
        for editor in editors.values():
            await editor.start({"ATLASD_HOME": str(self.served.folders.data.parent)})
        everything = [file for files in self.files.values() for file in files]
        clients = Clients(self.served.folders.socket, everything, self.seen, self._chance)
        async with asyncio.TaskGroup() as work:
            for root, editor in editors.items():
                work.create_task(
                    develop(
                        editor, self.files[root], self.seen, self._chance, self._busy, self._over
                    )
                )
            for minute in range(1, minutes + 1):
                resting = minute % REST_EVERY == 0
                self._busy.clear() if resting else self._busy.set()
                count = 0 if resting else 1 + minute % MOST_CLIENTS
                asking = [work.create_task(clients.ask()) for _ in range(count)]
                await self._minute(BRANCHES[minute % 2], purges=minute % purge == 0)
                for task in asking:
                    task.cancel()
                self._row(minute, count)
            self._over.set()
            self._busy.set()
        for editor in editors.values():
            await editor.stop()

    async def _minute(self, branch: str, *, purges: bool) -> None:
        began = time.monotonic()
        await asyncio.sleep(MINUTE_S / 4)
        for root in self.files:
            await asyncio.to_thread(git, root, "switch", "-qf", branch)
        if purges:
            whose = self._chance.choice([*map(str, self.files), None])
            body = {"repository": whose}
            call = self.served.connection.call
            await asyncio.to_thread(call, "POST", "/atlasd/v1/data/purge", body, timeout=120)
        await asyncio.sleep(began + MINUTE_S - time.monotonic())

    def _row(self, minute: int, clients: int) -> None:
        status = self.served.status()
        daemon, engine = psutil.Process(status["pid"]), psutil.Process(status["engine_pid"])
        bridges = [one for one in psutil.Process().children() if one.pid != daemon.pid]
        resident = [
            sum(one.memory_info().rss for one in some) / 1e6
            for some in ([daemon], [engine], bridges)
        ]
        counts, waited = self.seen.taken()
        self.total += counts
        tokens, self._tokens = self._tokens, status["served"]["output_tokens"]
        folders = self.served.folders
        row: list[object] = [
            f"{minute} ({clients or 'rest'})",
            *(f"{mb:.0f}" for mb in resident),
            f"{daemon.num_fds()} / {engine.num_fds()}",
            f"{daemon.num_threads()} / {engine.num_threads()}",
            f"{size(folders.data) / 1e3:.0f}",
            f"{size(folders.cache) / 1e6:.1f}",
            sum(map(len, waited.values())),
            counts["withdrawn"],
            f"{(self._tokens - tokens) / MINUTE_S:.0f}",
            ", ".join(f"{kind} {statistics.median(waited[kind]):.0f}" for kind in sorted(waited)),
        ]
        self.rows.append(row)
        print("| " + " | ".join(map(str, row)) + " |", flush=True)


def size(folder: Path) -> int:
    """Bytes of all files below a folder."""
    found = 0
    for file in folder.rglob("*"):
        try:
            found += file.stat().st_size
        except FileNotFoundError:  # being replaced
            continue
    return found


def complaints(log: Path) -> list[str]:
    return re.findall(r"^\S+ \S+ (?:WARNING|ERROR|CRITICAL).*", log.read_text(), re.MULTILINE)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--minutes", type=int, default=5)
    parser.add_argument("--purge", type=int, default=10, help="every so many minutes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--model")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="atlasd-soak-") as folder:
        files = repositories(Path(folder))
        with serve(*(["--model", options.model] if options.model else [])) as served:
            soak = Soak(served, files, options.seed)
            asyncio.run(soak.run(options.minutes, options.purge))
            wrong = soak.seen.wrong + complaints(served.folders.log)
    print()
    print(table(f"Soak (`python -m bench.soak --minutes {options.minutes}`)", HEADER, soak.rows))
    total = soak.total
    print(f"{total['compared']} texts compared, {total['suggestions']} suggestions shown in the "
          f"editors ({total['accepted']} accepted); wrong: {len(wrong)}.")  # fmt: skip
    for complaint in wrong[:SHOWN]:
        print(complaint)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
