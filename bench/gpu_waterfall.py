"""The stack as a waterfall: FP8 plain, FP4 plain, + static drafter, + adaptive drafters.

Composed: step costs are measured here in the 7B shape, the drafter's in the 0.5B shape; how many
drafted tokens are accepted cannot be had from random weights and comes from a replay of real
repository text with the bundled pair, given as JSON by ``--acceptance``:

    {"source": "where it was measured",
     "static": {"reach": [0.71, 0.52, ...], "neural": 1.0},
     "adaptive": {"reach": [0.86, 0.77, ...], "neural": 0.4}}

``reach[i]`` is the share of drafts of which the first i + 1 tokens were all accepted, ``neural``
the share of drafted tokens that the neural drafter made. Without the file nothing is composed.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from atlasd.models.cuda_layout import BUCKETS
from bench.gpu_shapes import plain_step, random_decoder, wall_ms
from bench.shapes import shape_config

if TYPE_CHECKING:
    from bench.gpu_check import Check


def waterfall(check: Check) -> None:
    """Each step of the stack in tokens per second, and over FP8 plain."""
    steps = check.results["steps"]
    fp8, fp4 = (steps[f"7B {kind} 1"]["ms_at_4k"] for kind in ("fp8", "nvfp4"))
    lines = [("FP8 plain", 1e3 / fp8, 0), ("FP4 plain", 1e3 / fp4, 0)]
    if check.acceptance is None:
        check.say("no --acceptance file: the drafted steps of the waterfall are left out")
    else:
        given = json.loads(check.acceptance.read_text())
        decoder = random_decoder(shape_config("0.5B"), "bf16", 1024)
        drafter = wall_ms(plain_step(decoder, 1, 512))
        decoder.close()
        check.say(f"drafter in the 0.5B shape: {drafter:.3f} ms a token")
        check.say(f"acceptance: {given['source']}")
        costs = {
            rows: float(steps[f"7B nvfp4 {rows}"]["ms_at_4k"])
            for rows in BUCKETS
            if f"7B nvfp4 {rows}" in steps
        }
        for name in ("static", "adaptive"):
            rate, lookahead = best(given[name], costs, drafter)
            lines.append((f"+ {name} drafter", rate, lookahead))
    first = lines[0][1]
    cells: list[list[object]] = [
        [what, f"{rate:.0f}", lookahead or "", f"{rate / first:.2f}"]
        for what, rate, lookahead in lines
    ]
    check.results["waterfall"] = {what: rate for what, rate, _ in lines}
    header = ["7B shape at 4k", "tokens/s", "lookahead", "over FP8 plain (aim 4)"]
    check.table("Waterfall, composed from measured costs and measured acceptance", header, cells)


def best(given: dict[str, Any], costs: dict[int, float], drafter_ms: float) -> tuple[float, int]:
    """Most tokens per second over fixed lookaheads, and the lookahead. ``costs`` is milliseconds
    by row bucket."""
    reach = [float(share) for share in given["reach"]]
    rates = []
    for lookahead in range(min(len(reach), max(costs) - 1) + 1):
        tokens = 1 + sum(reach[:lookahead])
        bucket = min(rows for rows in costs if rows > lookahead)
        ms = costs[bucket] + lookahead * float(given["neural"]) * drafter_ms
        rates.append((tokens / ms * 1e3, lookahead))
    return max(rates)
