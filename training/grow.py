"""Add layers to a run without changing what it computes: a new one writes nothing until it learns.

Few layers learn the first million tokens as well as many and cost less; then they get company.

    python -m training.grow --run main --layers 4 --to grown
"""

import argparse
from dataclasses import replace

import torch

from training.model import Decoder, Shape
from training.train import Run


def grow(model: Decoder, layers: int) -> Decoder:
    """A deeper decoder with the same outputs; new layers are spread behind the old ones."""
    old = model.shape.layers
    taller = Decoder(replace(model.shape, layers=layers))
    for name in ("embed", "norm"):
        getattr(taller, name).load_state_dict(getattr(model, name).state_dict())
    for number, layer in enumerate(model.layers):
        taller.layers[number * layers // old].load_state_dict(layer.state_dict())
    return taller


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", default="main")
    parser.add_argument("--to", default="grown")
    parser.add_argument("--layers", type=int, default=4)
    args = parser.parse_args()
    torch.manual_seed(2)
    saved = Run(args.run).load()
    if saved is None:
        raise SystemExit(f"there is no run {args.run}")
    model = Decoder(Shape(**saved["shape"]))  # type: ignore[arg-type]
    model.load_state_dict(saved["model"])  # type: ignore[arg-type]
    counts = {name: saved[name] for name in ("tokens", "seconds", "positions")}
    Run(args.to).save_weights(grow(model, args.layers), **counts)
    print(f"{model.shape.layers} layers of {args.run} became {args.layers} of {args.to}")


if __name__ == "__main__":
    main()
