"""Every number of bench/RESULTS.md that this machine can give, one bench after the other.

    make bench          (python -m bench [--quick] [NAME ...])

Leave the machine alone meanwhile: the figures are ratios within one run, but a core must be free.
"""

from __future__ import annotations

import argparse
import subprocess
import sys

from bench.report import machine

BENCHES: dict[str, tuple[str, list[str], list[str]]] = {
    "startup": ("daemon up, model ready, memory", [], ["--rounds", "2"]),
    "plain": ("plain decoding against transformers", ["--model", "bundled"], ["--rounds", "3"]),
    "typing_along": ("tokens computed again per keystroke", [], ["--tokens", "500"]),
    "bridge": ("LSP over the bare socket call", [], ["--requests", "20"]),
    "index": ("a million lines indexed in the background", [], []),
    "drafting": ("tokens per second with drafting on over off", [], ["--sites", "8"]),
    "positions": ("the position index at size", [], []),
    "controller": ("drafting and controlling per step", [], []),
    "step": ("a step of the CPU kernels by rows", [], ["--rounds", "3"]),
    "step_drafted": ("where the time of drafted steps goes", [], ["--sites", "4"]),
    "quality": ("what INT8 and INT4 cost in quality", [], ["--bytes", "10000"]),
    "identity": ("drafting on and off, text by text", [], ["--cases", "20"]),
}
"""By module: what it measures, its options, and more options for ``--quick``."""


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHES))
    parser.add_argument("--quick", action="store_true", help="fewer rounds")
    options = parser.parse_args()
    unknown = [name for name in options.names if name not in BENCHES]
    if unknown:
        parser.error(f"no bench {unknown[0]!r}; there are {', '.join(BENCHES)}")
    print(f"Machine: {machine()}.\n", flush=True)
    failed = []
    for name in options.names or BENCHES:
        about, usual, quick = BENCHES[name]
        print(f"== {name}: {about}", flush=True)
        extra = quick if options.quick else []
        command = [sys.executable, "-m", f"bench.{name}", *usual, *extra]
        try:
            if subprocess.run(command, check=False).returncode:
                failed.append(name)
        except KeyboardInterrupt:
            print("\ninterrupted")
            return 130
    if failed:
        print(f"failed: {', '.join(failed)}", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
