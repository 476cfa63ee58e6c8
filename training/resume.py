"""Make a training run out of a shipped folder, so that training goes on from weights alone.

python -m training.resume --model atlasd/models/bundled/target --run main
"""

import argparse
from pathlib import Path

from training.export import load
from training.fetch import HERE
from training.train import Run


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=HERE.parent / "atlasd/models/bundled/target")
    parser.add_argument("--run", default="main")
    args = parser.parse_args()
    run = Run(args.run)
    if run.file.exists():
        raise SystemExit(f"{run.file} exists already: continue it with training.train")
    run.save_weights(load(args.model))
    print(f"wrote {run.file}")


if __name__ == "__main__":
    main()
