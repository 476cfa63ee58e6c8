"""Every plot of docs/ that comes out of replay, in one command.

    python -m bench.plots [FOLDER] [--requests 40] [--predictions 20000]

Acceptance and lookahead over the requests of the drift sequence, the waterfall of its systems, and
the calibration of confidence; their tables are printed beside them.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

DOCS = Path(__file__).resolve().parents[1] / "docs"


def main() -> int:
    """Draw them all; the exit status is that of the first bench that fails."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=DOCS)
    parser.add_argument("--requests", default="40", help="per phase of the drift sequence")
    parser.add_argument("--predictions", default="20000", help="at least, per source")
    options = parser.parse_args()
    for bench, amount in (
        ("drift", ("--requests", options.requests)),
        ("calibration", ("--predictions", options.predictions)),
    ):
        command = (sys.executable, "-m", f"bench.{bench}", *amount, "--plots", str(options.folder))
        if failed := subprocess.run(command, check=False).returncode:
            return failed
    return 0


if __name__ == "__main__":
    sys.exit(main())
