"""Indexing a repository of a million lines behind everything else. ``python -m bench.index``.

The repository is this environment's installed Python packages, copied until there are enough lines.
Told are: how long indexing takes in the background with the model's real tokenizer, how long after
a restart when the kept tokens are used again, how soon it stands still when a request arrives, and
how late the daemon's event loop is meanwhile.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import gc
import resource
import shutil
import sysconfig
import tempfile
import threading
from pathlib import Path
from time import perf_counter, process_time, thread_time

from rich.console import Console
from rich.table import Table

from atlasd.models.locate import find_model
from atlasd.models.tokenizer import Tokenizer
from atlasd.paths import paths
from atlasd.store.database import Store
from atlasd.workspace.workspace import Workspace

REQUEST_EVERY_S, REQUEST_S = 0.5, 0.05


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--lines", type=int, default=1_000_000)
    parser.add_argument("--model", help="whose tokenizer; the bundled model's otherwise")
    arguments = parser.parse_args()
    console = Console()
    idle = asyncio.run(idle_lag())
    tokenizer = Tokenizer.load(find_model(arguments.model, paths()))
    gc.freeze()  # as the daemon does
    with tempfile.TemporaryDirectory() as folder:
        root, home = Path(folder, "repository"), Path(folder, "home")
        with console.status(f"Copying packages with {arguments.lines:,} lines"):
            lines, size = copy_packages(root, arguments.lines)
        table = Table(title=f"{lines:,} lines, {size / 1e6:.0f} MB of installed packages")
        for column in ("run", "wall s", "CPU s", "files", "tokens", "peak MB"):
            table.add_column(column, justify="right")
        for name, requests in (("alone", False), ("again", False), ("with requests", True)):
            if name != "again":
                shutil.rmtree(home, ignore_errors=True)
            with console.status(f"Indexing {name}"):
                run = asyncio.run(index(root, home, tokenizer, requests))
            table.add_row(name, *run.row())
        console.print(table)
        console.print(
            f"Requests arrived {len(run.pauses)} times while indexing; it stood still after "
            f"{told(run.pauses, 0.5, 1)} (median, most). Between two looks for one it worked for "
            f"{told(run.steps, 0.5, 0.99, 1)} of processor time (median, one of a hundred, most). "
            f"The event loop was late by {told(run.lags, 0.5, 0.99)} (median, one of a hundred), "
            f"with nothing to do by {told(idle, 0.5, 0.99)}."
        )


class Requests:
    """Arrive now and then; remember how long until indexing asked and stood still."""

    def __init__(self) -> None:
        self.pauses: list[float] = []
        self.steps: list[float] = []
        """Processor time between two looks, in ms: the pause where nothing else runs."""
        self._looked: float | None = None
        self._since: float | None = None
        self._open = False
        self._lock = threading.Lock()

    def busy(self) -> bool:
        """Asked by the indexing thread."""
        if self._looked is not None:
            self.steps.append(1000 * (thread_time() - self._looked))
        self._looked = thread_time()
        with self._lock:
            if self._open and self._since is not None:
                self.pauses.append(1000 * (perf_counter() - self._since))
                self._since = None
            return self._open

    async def arrive(self) -> None:
        while True:
            await asyncio.sleep(REQUEST_EVERY_S)
            with self._lock:
                self._since, self._open = perf_counter(), True
            await asyncio.sleep(REQUEST_S)
            with self._lock:
                self._open = False


class Run:
    """What one indexing run took."""

    def __init__(self) -> None:
        self.wall = self.cpu = 0.0
        self.files = self.tokens = 0
        self.pauses: list[float] = []
        self.steps: list[float] = []
        self.lags: list[float] = []

    def row(self) -> list[str]:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        numbers = (self.wall, self.cpu)
        return [
            *(f"{n:.1f}" for n in numbers),
            f"{self.files:,}",
            f"{self.tokens:,}",
            f"{peak:.0f}",
        ]


async def index(root: Path, home: Path, tokenizer: Tokenizer, requests: bool) -> Run:
    """Open, index, stop; as the daemon does it, with the engine's end left open."""
    run, arriving = Run(), Requests()
    store = await Store.open(home / "atlasd.db")
    workspace = Workspace(
        send=lambda message: None, busy=arriving.busy, store=store, cache=home / "cache"
    )
    workspace.use_tokenizer(tokenizer.encode_batch, tokenizer.fingerprint)
    beside = [asyncio.create_task(measure_lag(run.lags))]
    if requests:
        beside.append(asyncio.create_task(arriving.arrive()))
    wall, cpu = perf_counter(), process_time()
    done = await workspace.index(root)
    run.wall, run.cpu = perf_counter() - wall, process_time() - cpu
    for task in beside:
        task.cancel()
    await asyncio.gather(*beside, return_exceptions=True)
    run.files, run.tokens, run.pauses = done.files, done.tokens, arriving.pauses
    run.steps = arriving.steps
    await workspace.stop()
    await store.close()
    return run


async def idle_lag() -> list[float]:
    lags: list[float] = []
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(measure_lag(lags), 5)
    return lags


async def measure_lag(lags: list[float]) -> None:
    """How much later than asked the event loop comes back, in milliseconds."""
    while True:
        started = perf_counter()
        await asyncio.sleep(0.01)
        lags.append(1000 * (perf_counter() - started - 0.01))


def copy_packages(root: Path, wanted: int) -> tuple[int, int]:
    """Python files of installed packages, package by package; returns lines and bytes."""
    lines = size = 0
    source = Path(sysconfig.get_paths()["purelib"])
    for package in sorted(path for path in source.iterdir() if path.is_dir()):
        for path in sorted(package.rglob("*.py")):
            data = path.read_bytes()
            target = root / path.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(data)
            lines, size = lines + data.count(b"\n"), size + len(data)
            if lines >= wanted:
                return lines, size
    return lines, size


def told(values: list[float], *at: float) -> str:
    """Quantiles of milliseconds, in words."""
    return ", ".join(f"{quantile(values, one):.1f}" for one in at) + " ms"


def quantile(values: list[float], at: float) -> float:
    """A quantile of values, 0 if there are none."""
    ordered = sorted(values) or [0.0]
    return ordered[min(len(ordered) - 1, int(at * len(ordered)))]


if __name__ == "__main__":
    main()
