"""Distil a one-layer static drafter: the target's frozen embedding and states, a head over frequent
tokens.

    python -m training.distill --data training/work/packed/a --minutes 8 --out FOLDER

The folder is a complete Qwen2 checkpoint (the target's embedding included, so that any engine can
draft with it); draft_head.json lists the token ids it was trained to draft, most frequent first: an
engine that scores those alone drafts the same and cheaper. carry.safetensors makes use of the
target's states (see training.carry); without it the folder still drafts, only less well.
"""

import argparse
import json
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from training.carry import DraftModel, draw_depths, student_states
from training.export import load, load_draft_model, write, write_extras
from training.fetch import HERE
from training.model import Decoder
from training.rates import Rates
from training.train import Rows, optimisers
from training.workers import keep_memory

ROWS = 1024  # positions whose logits are held at once
WARMUP = 20  # steps
HEAD = 4096  # tokens


def frequent_tokens(rows: Rows, count: int, vocabulary: int) -> Tensor:
    """The ids of the `count` most frequent tokens of the data, most frequent first."""
    sample = rows.data[:4000].reshape(-1)
    frequency = np.bincount(sample, minlength=vocabulary)
    return torch.from_numpy(np.argsort(-frequency, kind="stable")[:count].copy())


def drafted_ids(folder: Path) -> Tensor:
    """The token ids that a drafter's reduced head covers."""
    return torch.tensor(json.loads((folder / "draft_head.json").read_text())["token_ids"])


def begin(target: Decoder, intermediate: int) -> DraftModel:
    """A one-layer student that starts from the target's first layer and final norm."""
    width = intermediate or target.shape.intermediate
    student = DraftModel(replace(target.shape, layers=1, intermediate=width))
    student.norm.load_state_dict(target.norm.state_dict())
    if width == target.shape.intermediate:
        student.layers[0].load_state_dict(target.layers[0].state_dict(), strict=False)
    return student


def widened(model: DraftModel, intermediate: int) -> DraftModel:
    """The same outputs from a wider MLP, whose new units are yet to be used."""
    old = model.shape.intermediate
    if intermediate <= old:
        return model
    wide = DraftModel(replace(model.shape, intermediate=intermediate))
    fresh = wide.layers[0].gate_up.weight.detach().view(2, intermediate, -1)
    state = model.state_dict()
    gate_up = state["layers.0.gate_up.weight"].view(2, old, -1)
    state["layers.0.gate_up.weight"] = torch.cat((gate_up, fresh[:, old:]), dim=1).flatten(0, 1)
    down = state["layers.0.down.weight"]
    state["layers.0.down.weight"] = F.pad(down, (0, intermediate - old))
    wide.load_state_dict(state)
    return wide


def divergence(states: Tensor, teacher: Tensor, head: Tensor, full: Tensor) -> Tensor:
    """Mean KL from the target's distribution to the student's over the head's tokens.

    states, teacher [rows, hidden]; head [drafted, hidden]; full [vocabulary, hidden]. Rows count by
    the probability that the target gives to the head's tokens: the rest cannot be drafted anyway.
    """
    with torch.no_grad():
        logits = teacher @ head.T
        norm = (teacher @ full.T).logsumexp(dim=-1, keepdim=True)
        wanted = (logits - norm).exp()  # sums to the head's share of the target's probability
        share = wanted.sum(dim=-1)
        entropy = torch.special.entr(wanted).sum() - torch.special.entr(share).sum()
    scores = F.log_softmax(states @ head.T, dim=-1)
    return (-(wanted * scores).sum() - entropy) / len(states)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", type=Path, default=HERE.parent / "atlasd/models/bundled/target")
    parser.add_argument("--data", type=Path, required=True, nargs="+", help="read in turn")
    parser.add_argument("--first-row", type=int, default=0, help="of the first of them")
    parser.add_argument("--from-drafter", type=Path, help="continue from this drafter")
    parser.add_argument("--head", type=int, default=0, help="tokens; 0: as before, or 4,096")
    parser.add_argument("--intermediate", type=int, default=0, help="0: as before, or the target's")
    parser.add_argument("--batch", type=int, default=8, help="rows of the data per step")
    parser.add_argument("--lr", type=float, default=0.01)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    keep_memory()
    torch.set_num_threads(args.threads)
    torch.manual_seed(1)
    target = load(args.target).eval().requires_grad_(False)
    packs = [Rows(path) for path in args.data]
    full = target.embed.weight.detach()
    if args.from_drafter:
        student = widened(load_draft_model(args.from_drafter), args.intermediate)
    else:
        student = begin(target, args.intermediate)
    student.embed.weight.data.copy_(full)
    student.embed.weight.requires_grad_(False)
    if args.from_drafter and not args.head:
        ids = drafted_ids(args.from_drafter)
    else:
        ids = frequent_tokens(packs[0], args.head or HEAD, len(full))
    head = full[ids]
    muon, adam = optimisers(student, args.lr, 0.002)
    muon.param_groups[0]["params"].append(student.carry.weight)
    adam.param_groups[0]["params"] = []  # the shared embedding stays as the target has it
    rates = Rates(muon, adam)
    began, step, tokens = time.monotonic(), 0, 0
    positions = [args.first_row, *[0] * (len(packs) - 1)]
    window: list[float] = []
    drawn = torch.Generator().manual_seed(1)
    while (progress := (time.monotonic() - began) / 60 / args.minutes) < 1:
        factor = min(1.0, (step + 1) / WARMUP, 2 * (1 - progress))
        rates.scale(factor)
        turn = step % len(packs)
        batch = packs[turn].read(positions[turn], args.batch)[:, :-1]
        with torch.no_grad():
            known = target.hidden(batch)
        depths = draw_depths(*batch.shape, drawn)
        states = student_states(student, batch, known, depths).flatten(0, 1)
        wanted = known.flatten(0, 1)
        # One chunk's logits at a time: gradients of the states are collected, then sent back once.
        leaf = states.detach().requires_grad_()
        total = 0.0
        for chunk, teacher in zip(leaf.split(ROWS), wanted.split(ROWS), strict=True):
            loss = divergence(chunk, teacher, head, full) * len(chunk) / len(leaf)
            loss.backward()
            total += float(loss.detach())
        states.backward(leaf.grad)
        for optim in (muon, adam):
            optim.step()
            optim.zero_grad(set_to_none=True)
        positions[turn] += args.batch
        step, tokens = step + 1, tokens + batch.numel()
        window.append(total)
        if step % 20 == 0:
            speed = tokens / (time.monotonic() - began)
            print(
                f"step {step}  {tokens / 1e6:.2f}M tokens  KL {sum(window) / len(window):.3f}"
                f"  lr x{factor:.2f}  {speed:.0f} tokens/s",
                flush=True,
            )
            window = []
    write(student, args.out, args.target)
    write_extras(student, args.out)
    head_file = {"token_ids": ids.tolist(), "distilled_tokens": tokens}
    (args.out / "draft_head.json").write_text(json.dumps(head_file) + "\n")


if __name__ == "__main__":
    main()
