"""How long the daemon takes to come up, and what it weighs without the engine.

python -m bench.startup [--rounds 5]
"""

from __future__ import annotations

import argparse

from bench.report import spread, table
from bench.served import serve


def measure(rounds: int) -> str:
    """Start and stop the daemon ``rounds`` times with an empty home, and then with a warm one."""
    health, ready, memory = [], [], []
    for _ in range(rounds):
        with serve() as served:
            health.append(served.health_s)
            ready.append(served.ready_s)
            memory.append(served.rss_mb())
    return table(
        "Start (`python -m bench.startup`)",
        ["what", "median (min to max)", "goal"],
        [
            ["health answers, s", spread(health), "1"],
            ["model ready, s", spread(ready), "10"],
            ["daemon without engine, resident MB", spread(memory, 0), "150"],
        ],
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    print(measure(parser.parse_args().rounds))
