"""Completions in a repository: this daemon beside llama-server with each of its ways to speculate.

    python -m bench.llama_server --server "chroot ROOT llama-server" --gguf FILE
        [--draft-gguf FILE] [--format bf16] [--model NAME] [--holes 12] [--tokens 64] [--rounds 2]

Both serve the same weights in the same precision on one thread each, and never at the same time
for the same hole: one request after the other, in alternating order. The prompts are what stands
before function bodies taken out of a copy of this repository, sent to ``/completion`` of both;
the daemon has the copy indexed, llama-server has its prompt cache. Tokens per second are those
that each server reports for decoding (``timings.predicted_per_second``).

Debian's llama.cpp serves: ``bash mk_debian_root.sh ROOT llama.cpp-tools`` makes a ROOT, into which
the GGUF files have to be copied; their paths are as seen from inside. Without --server there is
nothing to compare with, and the bench says so.
"""

from __future__ import annotations

import argparse
import json
import shlex
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from bench.holes import bodies, copy_repository, hole_in
from bench.report import spread, table
from bench.served import Served, serve

ROOT = Path(__file__).resolve().parents[1]
PREFIX_LINES = 60
NGRAM = ("ngram-simple", "ngram-map-k", "ngram-map-k4v", "ngram-mod", "ngram-cache")
READY_S = 60.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class LlamaServer:
    """One running llama-server."""

    def __init__(self, name: str, port: int, process: subprocess.Popen[bytes]) -> None:
        self.name, self._port, self._process = name, port, process

    def complete(self, prompt: str, tokens: int) -> dict[str, Any]:
        body = {"prompt": prompt, "n_predict": tokens, "temperature": 0, "cache_prompt": True}
        request = urllib.request.Request(
            f"http://127.0.0.1:{self._port}/completion",
            json.dumps(body).encode(),
            {"Content-Type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=300) as answer:
            found: dict[str, Any] = json.load(answer)
        return found

    def wait(self) -> bool:
        """Until it is ready; False if it ended, which an unknown --spec-type makes it do."""
        deadline = time.monotonic() + READY_S
        while self._process.poll() is None and time.monotonic() < deadline:
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{self._port}/health", timeout=5)
            except (urllib.error.URLError, OSError):
                time.sleep(0.2)
                continue
            return True
        return False


@contextmanager
def llama_server(command: str, name: str, *more: str) -> Iterator[LlamaServer | None]:
    """Start one; None, with its last words shown, if it does not come up."""
    port = free_port()
    line = [*shlex.split(command), "--host", "127.0.0.1", "--port", str(port), *more]
    with tempfile.TemporaryFile() as words:
        process = subprocess.Popen(line, stdout=words, stderr=subprocess.STDOUT)
        try:
            server = LlamaServer(name, port, process)
            if server.wait():
                yield server
            else:
                words.seek(0)
                last = words.read().decode(errors="replace").splitlines()[-2:]
                print(f"{name} does not come up: {' / '.join(last)}", file=sys.stderr)
                yield None
        finally:
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def spec_types(options: argparse.Namespace) -> dict[str, list[str]]:
    """By name, the options of each way to speculate."""
    ways: dict[str, list[str]] = {"none": []}
    if options.draft_gguf:
        ways["draft-simple"] = ["--spec-type", "draft-simple", "-md", options.draft_gguf]
    return ways | {name: ["--spec-type", name] for name in NGRAM}


def ours(served: Served, prompt: str, tokens: int, drafting: bool) -> dict[str, Any]:
    body: dict[str, Any] = {"prompt": prompt, "n_predict": tokens, "temperature": 0}
    if not drafting:
        body["speculative.n_max"] = 0
    return served.connection.call("POST", "/completion", body, timeout=120)


def prompts(copy: Path, count: int) -> list[str]:
    """What stands before function bodies that are then missing from the copy."""
    found: list[str] = []
    for path in copy_repository(ROOT, copy):
        spans = bodies(path.read_text())
        if spans and len(found) < count:
            hole = hole_in(path, *spans[len(spans) // 2])
            path.write_text(hole.before + "pass" + hole.after)
            found.append("".join(hole.before.splitlines(keepends=True)[-PREFIX_LINES:]))
    return found


def measure(options: argparse.Namespace) -> str:
    common = ["-m", options.gguf, "-t", str(options.threads), "-c", "4096", "-np", "1"]
    rates: dict[str, list[float]] = {}
    steps: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="atlasd-bench-") as folder, ExitStack() as stack:
        holes = prompts(Path(folder) / "repository", options.holes)
        home = Path(folder) / "home"
        (home / "config").mkdir(parents=True)
        settings = f'[model]\ndtype = "{options.format}"\nthreads = {options.threads}\n'
        (home / "config" / "config.toml").write_text(settings)
        model = ["--model", options.model] if options.model else []
        served = stack.enter_context(serve(*model, home=home))
        served.open(Path(folder) / "repository")
        servers = []
        for name, more in spec_types(options).items():
            server = stack.enter_context(
                llama_server(options.server, f"llama-server {name}", *common, *more)
            )
            servers += [server] if server is not None else []
        for number in range(options.rounds):
            for done, prompt in enumerate(holes):
                asked: list[tuple[str, Any]] = [
                    ("atlasd, drafting off", lambda p: ours(served, p, options.tokens, False)),
                    ("atlasd, drafting on", lambda p: ours(served, p, options.tokens, True)),
                    *((s.name, lambda p, s=s: s.complete(p, options.tokens)) for s in servers),
                ]
                for name, ask in asked if (number + done) % 2 else asked[::-1]:
                    answer = ask(prompt)
                    timings = answer["timings"]
                    if timings["predicted_n"] < 2:
                        continue
                    rates.setdefault(name, []).append(timings["predicted_per_second"])
                    plain = timings["predicted_n"] - timings.get("draft_n_accepted", 0)
                    steps.setdefault(name, []).append(timings["predicted_n"] / max(1, plain))
                print(f"\rround {number + 1}, {done + 1} of {len(holes)}", end="", file=sys.stderr)
    print(file=sys.stderr)
    own_rate = statistics.fmean(rates["atlasd, drafting on"])
    rows = []
    for name, found in rates.items():
        over = own_rate / statistics.fmean(found)
        cells = [name, spread(found, 1), f"{statistics.fmean(steps[name]):.2f}", f"{over:.2f}"]
        rows.append(cells)
    title = f"Completions in a repository, {options.format}, {options.threads} thread(s)"
    header = ["server", "tokens per second", "tokens a step", "atlasd with drafting over it"]
    return table(title, header, rows)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--server", help="the command that runs llama-server")
    parser.add_argument("--gguf", help="the target, as the server sees it")
    parser.add_argument("--draft-gguf", help="a drafter for draft-simple, likewise")
    parser.add_argument("--format", default="bf16", help="ours: bf16, int8 or int4")
    parser.add_argument("--model", help="ours; the bundled one if not given")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--holes", type=int, default=12)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=2)
    options = parser.parse_args()
    if not options.server or not options.gguf:
        print("skipped: no llama-server was named (--server and --gguf, see --help)")
        return 0
    print(measure(options))
    return 0


if __name__ == "__main__":
    sys.exit(main())
