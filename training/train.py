"""Train the target: constant learning rate, resumable; a linear decay can branch off anywhere.

    python -m training.train --size 7m --data work/packed/a --run main --minutes 90
    python -m training.train --run main --branch decayed --decay-steps 150 --data work/packed/b

The first command continues run `main` where its last checkpoint is; the second copies that
checkpoint into run `decayed`, takes the learning rate to zero there and leaves `main` alone.
"""

import argparse
import json
import math
import os
import time
from contextlib import nullcontext
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from training.fetch import HERE
from training.model import SIZES, Decoder, Shape
from training.muon import Muon
from training.rates import Rates, left
from training.workers import Workers, backward

RUNS = HERE / "work" / "runs"
WARMUP = 40  # steps


class Rows:
    """A packed file, read in order and again from its start; `position` counts rows ever read."""

    def __init__(self, path: Path) -> None:
        meta = json.loads(path.with_suffix(".json").read_text())
        shape = (meta["rows"], meta["width"])
        self.data = np.memmap(path.with_suffix(".bin"), dtype=np.uint16, mode="r", shape=shape)

    def read(self, position: int, count: int) -> Tensor:
        """[count, width] tokens."""
        picked = np.arange(position, position + count) % len(self.data)
        return torch.from_numpy(self.data[picked].astype(np.int64))


def optimisers(model: Decoder, lr: float, embed_lr: float) -> tuple[Muon, torch.optim.AdamW]:
    """Muon for matrices between hidden states, AdamW for the embedding, norms and biases."""
    matrices = [p for layer in model.layers for p in layer.parameters() if p.ndim == 2]
    for layer in model.layers:
        layer.qkv.weight.splits = layer.splits  # type: ignore[union-attr, assignment]
        half = model.shape.intermediate
        layer.gate_up.weight.splits = [half, half]  # type: ignore[union-attr, assignment]
    small = [p for p in model.parameters() if p.ndim < 2]
    groups = [
        {"params": [model.embed.weight], "lr": embed_lr, "weight_decay": 0.01},
        {"params": small, "lr": embed_lr, "weight_decay": 0.0},
    ]
    adam = torch.optim.AdamW(groups, betas=(0.9, 0.95), eps=1e-10, fused=True)
    return Muon(matrices, lr=lr, decay=0.02), adam


class Run:
    """A training run on disk: newest checkpoint, its optimiser states and its log."""

    def __init__(self, name: str) -> None:
        self.folder = RUNS / name
        self.folder.mkdir(parents=True, exist_ok=True)
        self.file = self.folder / "checkpoint.pt"

    @staticmethod
    def exists(name: str) -> bool:
        """Whether there is a run of this name, with a checkpoint."""
        return (RUNS / name / "checkpoint.pt").exists()

    def load(self) -> dict[str, object] | None:
        return torch.load(self.file, weights_only=False) if self.file.exists() else None

    def save(self, state: dict[str, object]) -> None:
        partial = self.file.with_suffix(".part")
        torch.save(state, partial)
        os.replace(partial, self.file)

    def save_weights(self, model: Decoder, **counts: object) -> None:
        """A checkpoint of weights alone: training begins there with fresh optimiser states."""
        fresh = {"step": 0, "tokens": 0, "seconds": 0.0, "positions": {}, "optimisers": []}
        self.save({**fresh, **counts, "shape": model.shape.to_dict(), "model": model.state_dict()})

    def log(self, entry: dict[str, float]) -> None:
        with (self.folder / "log.jsonl").open("a") as out:
            out.write(json.dumps(entry) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", default="main")
    parser.add_argument("--branch", help="continue a copy of --run under this name")
    parser.add_argument("--size", default="7m", choices=SIZES)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--batch", type=int, default=8192, help="tokens per step")
    parser.add_argument(
        "--micro", type=int, default=0, help="tokens per forward pass; 0: the batch"
    )
    parser.add_argument("--lr", type=float, default=0.02, help="of Muon")
    parser.add_argument("--embed-lr", type=float, default=0.004, help="of AdamW")
    parser.add_argument(
        "--decay-steps", type=int, default=0, help="stop after a linear decay this long"
    )
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--save-minutes", type=float, default=4.0)
    parser.add_argument("--workers", type=int, default=2, help="processes, on a CPU")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    return parser.parse_args()


def main() -> None:
    args = parse()
    torch.set_num_threads(1)  # Workers brings the parallelism
    torch.manual_seed(args.seed)
    device = torch.device(args.device)
    run = Run(args.branch or args.run)
    saved = run.load() or Run(args.run).load()
    shape = Shape(**saved["shape"]) if saved else SIZES[args.size]  # type: ignore[arg-type]
    model = Decoder(shape).to(device)
    optims = muon, adam = optimisers(model, args.lr, args.embed_lr)
    rates = Rates(*optims)
    step = tokens = decayed = 0
    seconds = 0.0  # of training, all sessions together
    if saved:
        model.load_state_dict(saved["model"])  # type: ignore[arg-type]
        for optim, state in zip(optims, saved["optimisers"], strict=False):  # type: ignore[call-overload]
            optim.load_state_dict(state)
        step, tokens, seconds = saved["step"], saved["tokens"], saved["seconds"]  # type: ignore[assignment]
        decayed = saved.get("decayed", 0)  # type: ignore[assignment]
    rows = Rows(args.data)
    position = saved["positions"].get(args.data.name, 0) if saved else 0  # type: ignore[attr-defined]
    positions: dict[str, int] = dict(saved["positions"]) if saved else {}  # type: ignore[call-overload]
    length = rows.data.shape[1] - 1
    micro = max(1, args.micro // length)
    parts = max(1, args.batch // (micro * length))
    workers = Workers(model, muon, rows.read, args.workers) if device.type == "cpu" else None
    precision = torch.autocast("cuda", torch.bfloat16) if device.type == "cuda" else nullcontext()
    print(f"{shape.parameters() / 1e6:.2f}M parameters, {parts} x {micro} x {length} tokens a step")

    def checkpoint() -> None:
        run.save(
            {
                "shape": shape.to_dict(),
                "model": model.state_dict(),
                "optimisers": [optim.state_dict() for optim in optims],
                "step": step,
                "tokens": tokens,
                "seconds": seconds,
                "decayed": decayed,
                "positions": {**positions, args.data.name: position},
            }
        )

    began = saved_at = last = time.monotonic()
    window: list[float] = []
    while (time.monotonic() - began) / 60 < args.minutes:
        factor = min(1.0, (step + 1) / WARMUP) * left(decayed, args.decay_steps)
        if factor <= 0:
            break
        rates.scale(factor)
        momentum = 0.85 + 0.1 * min(1.0, step / 150)
        muon.param_groups[0]["momentum"] = momentum
        if workers:
            total = workers.step(position, parts, micro, args.lr * factor, momentum)
        else:
            total = 0.0
            for part in range(parts):
                with precision:
                    batch = rows.read(position + part * micro, micro).to(device)
                    total += backward(model, batch, parts)
        position += parts * micro
        if not math.isfinite(total):
            raise RuntimeError(f"loss is {total} at step {step}")
        adam.step()
        if workers:
            workers.clear()
        else:
            muon.step()
            model.zero_grad(set_to_none=True)
        now = time.monotonic()
        seconds, last = seconds + now - last, now
        step, tokens, decayed = (
            step + 1,
            tokens + parts * micro * length,
            decayed + bool(args.decay_steps),
        )
        window.append(total)
        if step % 10 == 0:
            mean, window = sum(window) / len(window), []
            speed = 10 * parts * micro * length / max(1e-9, now - getattr(main, "_mark", began))
            main._mark = now  # type: ignore[attr-defined]
            entry = {"step": step, "tokens": tokens, "loss": mean, "lr": factor, "seconds": seconds}
            run.log(entry)
            print(
                f"step {step}  {tokens / 1e6:.2f}M tokens  loss {mean:.3f}"
                f"  {mean / math.log(2):.3f} bits/token  lr x{factor:.2f}  {speed:.0f} tokens/s",
                flush=True,
            )
        if (now - saved_at) / 60 > args.save_minutes:
            checkpoint()
            saved_at = now
    checkpoint()
    print(f"saved {run.file}")


if __name__ == "__main__":
    main()
