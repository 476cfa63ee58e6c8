"""Time of drafting and controlling per step, at 1 and 8 streams. ``python -m bench.controller``.

Streams replay this environment's installed Python source; every step's plan and settles are timed
by the processor time of the thread, so that other work on the machine does not count.
"""

from __future__ import annotations

import argparse
import sysconfig
from itertools import cycle
from pathlib import Path
from time import thread_time

import numpy as np
from rich.console import Console
from rich.table import Table

from atlasd.draft.drafter import Int32, StreamView
from atlasd.draft.registry import Drafting
from atlasd.models.locate import find_model
from atlasd.models.tokenizer import Tokenizer
from atlasd.paths import paths
from bench.replay.costs import COSTS
from bench.replay.run import agreement, view
from bench.replay.workload import Request, successive_files


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", help="whose tokenizer; the bundled model's otherwise")
    parser.add_argument("--package", default="rich", help="an installed package to replay")
    parser.add_argument("--requests", type=int, default=48)
    options = parser.parse_args()
    tokenizer = Tokenizer.load(find_model(options.model, paths()))
    root = Path(sysconfig.get_path("purelib")) / options.package
    requests = successive_files(options.package, root, tokenizer.encode, options.requests).requests
    table = Table("streams", "costs", "median µs", "90 %", "tokens/step", "at most")
    for streams, most in ((1, 100), (8, 400)):
        for name in ("cpu", "gpu"):
            times, per_step = measure(requests, tokenizer, streams, name)
            half, high = np.percentile(times, [50, 90]) * 1e6
            table.add_row(
                str(streams), name, f"{half:.0f}", f"{high:.0f}", f"{per_step:.2f}", str(most)
            )
    Console().print(table)


def measure(
    requests: list[Request], tokenizer: Tokenizer, count: int, profile: str
) -> tuple[list[float], float]:
    """Seconds of planning and settling per step with ``count`` streams, and tokens per stream and
    step."""
    costs = COSTS[profile]
    drafting = Drafting(
        vocab_size=tokenizer.vocab_size,
        fingerprint=tokenizer.fingerprint,
        line_ends=tokenizer.line_ends,
        costs=costs,
    )
    waiting = iter(requests)
    numbers = iter(range(1 << 30))
    running: list[tuple[StreamView, Request]] = []
    times: list[float] = []
    held: list[tuple[str, Int32]] = []
    verified = steps = 0
    controller = drafting.controller
    for _ in cycle([None]):
        while len(running) < count and (request := next(waiting, None)) is not None:
            # A file that is being completed stays as it was: its next version holds the answer.
            held += request.changed
            busy = {other.path for _, other in running}
            for path, tokens in [change for change in held if change[0] not in busy]:
                drafting.add_segment(path, request.repository, "file", tokens, request.language)
            held = [change for change in held if change[0] in busy]
            stream = view(next(numbers), request)
            controller.begin(stream)
            running.append((stream, request))
        if len(running) < count:
            break
        streams = [stream for stream, _ in running]
        room = 64 - count
        started = thread_time()
        drafts = controller.plan(streams, room).drafts
        spent = thread_time() - started
        for (stream, request), draft in zip(list(running), drafts, strict=True):
            at = len(stream.tokens) - stream.prompt_length
            accepted = agreement(draft.tokens, request.text, at)
            new = request.text[at : at + accepted + 1]
            stream.tokens.extend(new)
            verified += len(new)
            steps += 1
            started = thread_time()
            controller.settle(stream, draft, accepted, new, None, 1.0)
            spent += thread_time() - started
            if at + len(new) >= len(request.text):
                controller.end(stream)
                running.remove((stream, request))
        times.append(spent)
    return times, verified / max(1, steps)


if __name__ == "__main__":
    main()
