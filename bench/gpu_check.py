"""`make gpu-check`: build, check and time everything that needs an NVIDIA GPU, in one command.

    python -m bench.gpu_check [--out FOLDER] [--minutes 8] [--only SECTION,...] [--acceptance FILE]

Sections: device, warm (compiles the kernels, a process per format), tests (pytest -m gpu), rows
(row independence, thousands of cases), steps (milliseconds, bandwidth and tokens per second),
profile (device time by kernel), attention, prefill, peer (transformers, static cache, compiled),
waterfall. One that fails is reported and the next one runs; what there is no time left for is said.
Writes ``gpu_check.log`` and ``gpu_check.json`` into FOLDER ($OUT, or bench/out) after each section.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from time import monotonic
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
FORMATS = ("bf16", "fp8", "int8", "int4", "nvfp4")
Section = Callable[["Check"], None]


class Check:
    """What has been found so far; printed, logged and written as JSON."""

    def __init__(self, out: Path, minutes: float, acceptance: Path | None) -> None:
        out.mkdir(parents=True, exist_ok=True)
        self.out, self.acceptance = out, acceptance
        self.until = monotonic() + 60 * minutes
        self.results: dict[str, Any] = {}
        self.failed: list[str] = []
        self._log = (out / "gpu_check.log").open("w")

    @property
    def left(self) -> float:
        """Seconds left."""
        return self.until - monotonic()

    def say(self, line: str) -> None:
        """Print and log a line."""
        print(line, flush=True)
        print(line, file=self._log, flush=True)

    def table(self, title: str, header: list[str], rows: list[list[object]]) -> None:
        """Say a Markdown table."""
        self.say(f"\n### {title}\n")
        self.say("| " + " | ".join(header) + " |")
        self.say("|" + "---|" * len(header))
        for row in rows:
            self.say("| " + " | ".join(str(cell) for cell in row) + " |")

    def save(self) -> None:
        """Write the JSON."""
        whole = {"results": self.results, "failed": self.failed}
        (self.out / "gpu_check.json").write_text(json.dumps(whole, indent=1, default=str))

    def close(self) -> None:
        """End the log."""
        self._log.close()

    def run(self, name: str, section: Section, needs: float) -> None:
        """Run a section if the time allows."""
        if self.left < needs:
            self.say(f"\n== {name}: skipped, {self.left:.0f} s left of the {needs:.0f} s it takes")
            self.failed.append(f"{name}: no time")
            return
        began = monotonic()
        self.say(f"\n== {name}")
        try:
            section(self)
        except Exception:
            self.failed.append(name)
            self.say(traceback.format_exc())
        self.say(f"({name}: {monotonic() - began:.1f} s)")
        self.save()


def no_gpu() -> str:
    """Why nothing can be checked here; empty if it can."""
    try:
        import torch
        import triton  # noqa: F401
    except ImportError as error:
        return f"{error.name} is not installed"
    if not torch.cuda.is_available():
        return "torch finds no NVIDIA GPU"
    if os.environ.get("TRITON_INTERPRET") == "1":
        return "TRITON_INTERPRET is set: the kernels would run on the CPU"
    return ""


def device(check: Check) -> None:
    import torch
    import triton

    from bench.gpu_shapes import bandwidth, matmul_peak

    about = torch.cuda.get_device_properties(0)
    found = {
        "gpu": about.name,
        "memory_gib": round(about.total_memory / 2**30, 1),
        "processors": about.multi_processor_count,
        "capability": f"{about.major}.{about.minor}",
        "torch": torch.__version__,
        "triton": triton.__version__,
        "bandwidth_gb_s": round(bandwidth() / 1e9),
        "bf16_tflops": round(matmul_peak() / 1e12, 1),
    }
    torch.cuda.empty_cache()
    smi = "--query-gpu=clocks.max.sm,clocks.max.mem,power.limit,driver_version"
    asked = subprocess.run(
        ["nvidia-smi", smi, "--format=csv,noheader"], capture_output=True, text=True, check=False
    )
    found["clocks, power limit, driver"] = asked.stdout.strip()
    check.results["device"] = found
    check.table("Device", ["what", "value"], [[k, v] for k, v in found.items()])


def warm(check: Check) -> None:
    """Compile in parallel, into Triton's cache on disk; a model of one layer uses every kernel."""
    command = [sys.executable, "-m", "bench.gpu_check", "--warm"]
    running = [
        subprocess.Popen([*command, f"{shape}:{kind}"], cwd=ROOT)
        for shape in ("7B", "1.5B")
        for kind in FORMATS
    ]
    codes = [process.wait() for process in running]
    check.say(f"kernels compiled by {len(codes)} processes")
    if any(codes):
        raise RuntimeError(f"compiling failed: {codes}")


def warm_one(what: str) -> None:
    """In a process of its own: compile what a shape and format need."""
    from dataclasses import replace

    import numpy as np

    from bench.gpu_shapes import plain_step, random_decoder
    from bench.shapes import shape_config

    shape, kind = what.split(":")
    config = shape_config(shape)
    config = replace(config, layers=1, sliding_window=(None,), vocab_size=17_408, tied=False)
    decoder = random_decoder(config, kind, 2048)  # type: ignore[arg-type]
    plain_step(decoder, 1, 100)()
    rows = np.arange(1024, dtype=np.int32)
    decoder.forward(rows, rows * 0, rows, rows[-1:], prefill=True)


def tests(check: Check) -> None:
    # Warnings of another torch or driver are no failures of the kernels.
    command = [sys.executable, "-m", "pytest", "-q", "-W", "default", "-m", "gpu", "tests/gpu"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    check.say(done.stdout[-3000:] + done.stderr[-1000:])
    check.results["tests"] = done.stdout.splitlines()[-1:]
    if done.returncode:
        raise RuntimeError("tests failed")


def rows(check: Check) -> None:
    from bench.gpu_rows import check_decoder, check_kernels
    from bench.gpu_timing import free, small_decoder

    tallies = check_kernels()
    for kind in FORMATS:
        decoder = small_decoder(kind)
        tally = check_decoder(decoder, 2)
        tally.what += f", {kind}"
        tallies.append(tally)
        decoder.close()
        free()
    cells = [[t.what, t.cases, t.differing] for t in tallies]
    check.results["rows"] = cells
    check.table("Row independence", ["what", "rows compared", "differing"], cells)
    if any(t.differing for t in tallies):
        raise RuntimeError("rows depend on their neighbours")


def sections() -> dict[str, tuple[Section, float]]:
    """In order: what runs, and about how many seconds it takes."""
    from bench import gpu_timing, gpu_waterfall

    return {
        "device": (device, 5),
        "warm": (warm, 60),
        "tests": (tests, 40),
        "rows": (rows, 40),
        "steps": (gpu_timing.steps, 60),
        "profile": (gpu_timing.profile, 25),
        "attention": (gpu_timing.attention, 10),
        "prefill": (gpu_timing.prefill, 10),
        "peer": (gpu_timing.peer, 60),
        "waterfall": (gpu_waterfall.waterfall, 20),
    }


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench.gpu_check", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path(os.environ.get("OUT") or "bench/out"))
    parser.add_argument("--minutes", type=float, default=8.0)
    parser.add_argument("--only", default="", help="sections, comma between them")
    parser.add_argument("--acceptance", type=Path, help="JSON for the waterfall; see gpu_waterfall")
    parser.add_argument("--warm", default="", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if reason := no_gpu():
        print(f"gpu-check: nothing was checked or timed, because {reason}.", file=sys.stderr)
        print("It needs an NVIDIA GPU (Ampere or newer) and a torch with CUDA.", file=sys.stderr)
        return 2
    if options.warm:
        warm_one(options.warm)
        return 0
    check = Check(options.out, options.minutes, options.acceptance)
    wanted = [name for name in options.only.split(",") if name]
    for name, (section, needs) in sections().items():
        if not wanted or name in wanted or name == "device":
            check.run(name, section, needs)
    check.save()
    check.say(f"\nfailed: {', '.join(check.failed) or 'nothing'}; written to {options.out}")
    check.close()
    return 1 if check.failed else 0


if __name__ == "__main__":
    sys.exit(main())
