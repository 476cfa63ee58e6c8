"""Go on with a run, a quarter of its rows circles: what comes next, and to end where it goes round.

    python -m training.stopping --run main --to stopping --data training/work/packed/a \
        --circles training/work/packed/circles --minutes 50

Rows of the data are learned as in `training.train`, at its constant rate; text that repeats itself
and goes on is among them. In rows of circles (`training.circles`) the target's own words are not
learned, only where to end. That a token repeats what was said has to be noticed before it can be
acted upon, and ends are rare: so readers of every layer but the first are taught at every token how
long the text has been repeating itself (they are no part of the model), and five heads where to
look (`training.attending`).
"""

import argparse
import json
import math
import random
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from tokenizers import Tokenizer
from torch import Tensor

from training import attending, repeats
from training.evaluate import is_loop
from training.fetch import HERE
from training.generate import continue_all
from training.hands import Hands
from training.lesson import Readers, Sums, backward
from training.model import Decoder, Shape
from training.pack import read
from training.tokenizer import SHARES, end_id
from training.train import Rows, Run, optimisers
from training.workers import keep_memory


def led(row: Tensor, end: int, turn: int, every: bool) -> Tensor:
    """row [n] with its first token, and if `every` those of its documents, replaced by the end, of
    two one, in turns: packed documents are attended one by one, so that none ever sees the end that
    it follows, but engines put one before a prompt."""
    starts = ((row[:-1] == end) & (row[1:] != end)).nonzero().flatten() + 1 if every else row[:0]
    starts = torch.cat((torch.zeros(1, dtype=torch.long), starts))[turn % 2 :: 2]
    return row.index_fill(0, starts, end)


def left(gone: float, of: float) -> float:
    """What a linear decay over `of` has left of the rate; all of it where none was asked for."""
    return max(0.0, 1 - gone / of) if of else 1.0


class Circles:
    """Rows of `training.circles` and `training.refrains` together, shuffled; `name` stands for them
    in a run's positions."""

    def __init__(self, files: list[Path]) -> None:
        self.name = "+".join(file.name for file in files)
        widths = [Rows(file).data.shape[1] for file in files]
        self.tokens, self.kinds = (
            np.concatenate(
                [
                    np.fromfile(file.with_suffix(end), kind).reshape(-1, width)
                    for file, width in zip(files, widths, strict=True)
                ]
            )
            for end, kind in ((".bin", np.uint16), (".kinds", np.uint8))
        )
        self.order = np.random.default_rng(0).permutation(len(self.tokens))

    def read(self, position: int) -> tuple[Tensor, npt.NDArray[np.uint8]]:
        """A row and what is to be learned after each of its tokens."""
        at = self.order[position % len(self.order)]
        return torch.from_numpy(self.tokens[at].astype(np.int64)), self.kinds[at]


class Watch:
    """Pieces of training files: where it would end, and whether it goes round."""

    def __init__(self, tokenizer: Tokenizer, end: int) -> None:
        rng, self.end = random.Random(99), end
        self.started: list[list[int]] = []
        rows: list[list[int]] = []
        pools = [rng.sample(read("train", name), 300) for name in SHARES]
        while len(rows) < 60:
            text = pools[len(rows) % len(pools)].pop().text
            ids = tokenizer.encode(text, add_special_tokens=False).ids
            if len(ids) > 1000:
                self.started.append(ids[:400])
                rows.append(ids[-1000:])
        self.text = torch.tensor(rows)

    @torch.no_grad()
    def __call__(self, model: Decoder) -> str:
        made = continue_all(model, self.started, 200, self.end)
        firsts = torch.cat([model.logits(r[:, :-1]).argmax(dim=-1) for r in self.text.split(2)])
        wrong = (firsts == self.end) & (self.text[:, 1:] != self.end)
        run, _ = repeats.measures(self.text.numpy()[:, :-1])
        again = wrong & torch.from_numpy(run >= 14)
        loops = [is_loop(text) for text in made]
        ended = [text for text in made if len(text) < 200]
        clean = sum(repeats.measures(np.array([text or [0]]))[0][0, -1] < 8 for text in ended)
        per = 10_000 / firsts.numel()
        return (
            f"loops {sum(loops) / len(made):.2f}  ended {len(ended) / len(made):.2f}"
            f" (not going round {clean / len(made):.2f})"
            f"  wrong ends {float(wrong.sum()) * per:.1f} of 10,000,"
            f" where it repeats {float(again.sum()) * per:.1f},"
            f" rows with one {float(wrong.any(dim=1).float().mean()):.2f}"
        )


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", required=True, help="begin with its newest checkpoint")
    parser.add_argument("--to", required=True, help="run to write; continued where it was left")
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--circles", type=Path, nargs="+", required=True)
    parser.add_argument("--batch", type=int, default=8192, help="tokens per step")
    parser.add_argument("--share", type=float, default=0.25, help="of circles, of the tokens")
    parser.add_argument("--lr", type=float, default=0.006, help="of Muon")
    parser.add_argument("--embed-lr", type=float, default=0.0008, help="of AdamW")
    parser.add_argument("--ends", type=float, default=1.0, help="weight of wanted ends")
    parser.add_argument("--open", type=float, default=1.0, help="weight of ends not to come yet")
    parser.add_argument("--readers", type=float, default=0.1, help="weight of the readers")
    parser.add_argument("--attention", type=float, default=0.1, help="weight of where heads look")
    parser.add_argument("--decay-steps", type=int, default=0, help="the rate falls to zero")
    parser.add_argument("--decay-minutes", type=float, default=0, help="so it does in this time")
    parser.add_argument("--workers", type=int, default=1, help="processes")
    parser.add_argument("--minutes", type=float, default=1e9)
    parser.add_argument("--watch-minutes", type=float, default=8)
    parser.add_argument("--save-minutes", type=float, default=3)
    return parser.parse_args()


def main() -> None:
    args = parse()
    keep_memory()
    torch.set_num_threads(1)
    run = Run(args.to)
    saved = run.load() or Run(args.run).load()
    assert saved is not None
    fresh = not run.file.exists()
    shape = Shape(**saved["shape"])  # type: ignore[arg-type]
    model, readers = Decoder(shape), Readers(shape)
    model.load_state_dict(saved["model"])  # type: ignore[arg-type]
    muon, adam = optimisers(model, args.lr, args.embed_lr)
    other = torch.optim.AdamW(readers.parameters(), lr=0.003, weight_decay=0.0)
    for optim, state in zip((muon, adam), saved["optimisers"], strict=True):  # type: ignore[call-overload]
        optim.load_state_dict(state)
    if "readers" in saved:
        readers.load_state_dict(saved["readers"])  # type: ignore[arg-type]
        other.load_state_dict(saved["reading"])  # type: ignore[arg-type]
    step, tokens, seconds = (saved[k] for k in ("step", "tokens", "seconds"))
    decayed = 0 if fresh else int(saved["decayed"])  # type: ignore[call-overload]
    positions: dict[str, int] = dict(saved["positions"])  # type: ignore[call-overload]
    data, circles = Rows(args.data), Circles(args.circles)
    widths = data.data.shape[1] - 1, circles.tokens.shape[1] - 1
    own = round(args.batch * args.share / widths[1])
    texts = round((args.batch - own * widths[1]) / widths[0])
    count = own * widths[1] + texts * widths[0]
    tokenizer = Tokenizer.from_file(str(HERE / "work" / "tokenizer" / "tokenizer.json"))
    watch, end = Watch(tokenizer, end_id(shape.vocabulary)), end_id(shape.vocabulary)
    rates = args.ends, args.open, args.readers, args.attention
    heads = attending.nearest_heads(model, data.read(0, 2)[:, :600])
    print(f"heads {heads}")
    places = [positions.get(name, 0) for name in (args.data.name, circles.name)]

    def learn(number: int, places: list[int]) -> Sums:
        """Row `number` of a step whose rows of the data and of circles begin at those places."""
        own_row = number >= texts
        at = places[own_row] + number - own_row * texts
        row, kind = circles.read(at) if own_row else (data.read(at, 1)[0], None)
        return backward(model, readers, led(row, end, at, own_row), kind, count, rates, heads)

    hands = Hands([model, readers], learn, texts + own, args.workers)
    base = [[args.lr], [args.embed_lr] * 2, [0.003]]
    print(f"{texts} rows of the data and {own} of circles a step, {count} tokens; end {end}")

    def checkpoint() -> None:
        counts = {"step": step, "tokens": tokens, "seconds": seconds, "decayed": decayed}
        optims = [muon.state_dict(), adam.state_dict()]
        reading = {"readers": readers.state_dict(), "reading": other.state_dict()}
        parts = {"shape": shape.to_dict(), "model": model.state_dict(), "optimisers": optims}
        positions.update({args.data.name: places[0], circles.name: places[1]})
        run.save({**parts, **reading, **counts, "positions": positions})

    began = saved_at = watched = marked = time.monotonic()
    sums, since = Sums(), 0
    if fresh:
        print(watch(model), flush=True)
    while (time.monotonic() - began) / 60 < args.minutes:
        minutes = (time.monotonic() - began) / 60
        factor = left(decayed, args.decay_steps) * left(minutes, args.decay_minutes)
        if factor <= 0:
            break
        for optim, wanted in zip((muon, adam, other), base, strict=True):
            for group, rate in zip(optim.param_groups, wanted, strict=True):
                group["lr"] = rate * factor
        muon.param_groups[0]["momentum"] = 0.95
        sums = sums.plus(hands.step(places))
        places = [places[0] + texts, places[1] + own]
        if not math.isfinite(sums.text):
            raise RuntimeError(f"loss is {sums.text} at step {step}")
        for optim in (muon, adam, other):
            optim.step()
            optim.zero_grad(set_to_none=True)
        step, tokens, since = step + 1, tokens + count, since + 1  # type: ignore[operator]
        decayed += bool(args.decay_steps)
        now = time.monotonic()
        if step % 10 == 0:
            pace = since * count / (now - marked)
            print(f"step {step}  {sums}  lr x{factor:.2f}  {pace:.0f} tokens/s", flush=True)
            entry = {"step": step, "tokens": tokens, "lr": factor}
            run.log({**entry, **sums._replace(looked=None)._asdict()})
            sums, since, marked = Sums(), 0, now
        if (now - saved_at) / 60 > args.save_minutes:
            checkpoint()
            saved_at = now
        if (now - watched) / 60 > args.watch_minutes:
            print(watch(model), flush=True)
            watched = time.monotonic()
    checkpoint()
    print(watch(model), flush=True)
    print(json.dumps(positions))


if __name__ == "__main__":
    main()
