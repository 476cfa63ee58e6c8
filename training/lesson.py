"""What a row teaches: what comes next, where to end, how long it repeats itself, where to look."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training import attending, repeats
from training.circles import BESIDE, END, NOTHING, OPEN, TEXT
from training.model import Decoder, Shape, document_lengths, rope_tables
from training.tokenizer import end_id

LEVELS = (2, 4, 8, 12, 16, 24, 36)  # repeated tokens that are told apart
CHUNK = 256  # positions whose logits are held at once
READ_FROM = 1  # the first layer whose output is read


class Readers(nn.Module):
    """One linear map per layer read: its output -> does the text repeat `LEVELS` tokens, or so many
    that it had better end?"""

    def __init__(self, shape: Shape) -> None:
        super().__init__()
        self.maps = nn.ModuleList(
            nn.Sequential(nn.RMSNorm(shape.hidden), nn.Linear(shape.hidden, len(LEVELS) + 1))
            for _ in range(READ_FROM, shape.layers)
        )

    def loss(self, outputs: list[Tensor], wanted: Tensor) -> Tensor:
        losses = [
            F.binary_cross_entropy_with_logits(read(output), wanted, reduction="sum")
            for read, output in zip(self.maps, outputs, strict=True)
        ]
        return torch.stack(losses).sum()


class Sums(NamedTuple):
    """Of batches, for the log: nats and positions."""

    text: float = 0.0
    texts: int = 0
    missed: float = 0.0  # nats of the wanted ends
    ends: int = 0
    first: int = 0  # where the end was the first choice, of the ends
    early: float = 0.0  # probability of the end where the target goes on
    opens: int = 0
    reading: float = 0.0
    rows: int = 0
    looked: npt.NDArray[np.float64] = np.zeros(len(attending.ASKED))

    def plus(self, other: "Sums") -> "Sums":
        return Sums(*(a + b for a, b in zip(self, other, strict=True)))

    def __str__(self) -> str:
        ends, texts = max(1, self.ends), max(1, self.texts)
        return (
            f"text {self.text / texts:.3f}  ends {self.missed / ends:.3f} nats,"
            f" {self.first / ends:.2f} first  early {self.early / max(1, self.opens):.4f}"
            f"  reading {self.reading / (texts + self.opens + ends):.3f}"
            f"  looking {(self.looked / max(1, self.rows)).round(2).tolist()}"
        )


def levels(row: Tensor, documents: list[int]) -> Tensor:
    """row [width] of those documents -> [width, levels + 1]: which of them each token reaches."""
    found, start = [], 0
    for length in documents:
        part = row[start : start + length].numpy()[None]
        run, ripe = repeats.measures(part)
        found.append(np.stack([*(run[0] >= level for level in LEVELS), ripe[0]], axis=-1))
        start += length
    return torch.from_numpy(np.concatenate(found)).float()


def outputs_of(
    model: Decoder, tokens: Tensor, documents: list[int], heads: list[int] | None = None
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """tokens [1, width] -> final normed states, the outputs of the layers read, and of `heads` how
    many nats per token they are from looking where they should."""
    cos, sin = rope_tables(model.shape, tokens.shape[1])
    x, outputs = model.embed(tokens), []
    looking: list[Tensor] = []
    for number, layer in enumerate(model.layers):
        for (asked, kind), head in zip(attending.ASKED, heads or (), strict=False):
            if asked == number:
                nats, found = attending.attention_loss(layer, x, head, tokens[0], kind, documents)
                looking.append(nats / max(1, found))
        x = layer(x, cos, sin, documents)
        if number >= READ_FROM:
            outputs.append(x)
    return model.norm(x), outputs, looking


def backward(
    model: Decoder,
    readers: Readers,
    row: Tensor,
    kinds: npt.NDArray[np.uint8] | None,
    count: int,
    rates: tuple[float, float, float, float],
    heads: list[int],
) -> Sums:
    """Add the gradients of row [width + 1], per token of `count`; kinds None: all of it text.

    rates: of wanted ends, of ends not to come yet, of the readers, of the heads' attention.
    """
    end = end_id(model.shape.vocabulary)
    tokens, targets = row[None, :-1], row[1:].clone()
    documents = document_lengths(tokens[0], end)
    final, outputs, looking = outputs_of(model, tokens, documents, heads)
    reading = readers.loss(outputs, levels(tokens[0], documents)[None])
    leaf, head = final.detach()[0], model.embed.weight.detach()
    kind = torch.zeros_like(targets) if kinds is None else torch.from_numpy(kinds[:-1].astype(int))
    weights = torch.tensor([1.0, rates[1], rates[0], rates[0] / 2, 0.0])[kind]
    targets[(kind == END) | (kind == BESIDE)] = end
    grad, grad_head = torch.zeros_like(leaf), torch.zeros_like(head)
    looked = [float(nats.detach()) for nats in looking]
    sums = Sums(reading=float(reading.detach()), rows=1, looked=np.array(looked))
    for part in (kind != NOTHING).nonzero().flatten().split(CHUNK):
        states, wanted, which, weight = leaf[part], targets[part], kind[part], weights[part]
        logits = states @ head.T
        chances = F.softmax(logits, dim=-1)
        nats = -chances.gather(1, wanted[:, None])[:, 0].clamp_min(1e-30).log()
        ends, open_, text = which == END, which == OPEN, which == TEXT
        final_chance = chances[:, end].clone()
        sums = sums.plus(
            Sums(
                float(nats[text].sum()),
                int(text.sum()),
                float(nats[ends].sum()),
                int(ends.sum()),
                int((logits.argmax(dim=-1) == end)[ends].sum()),
                float(final_chance[open_].sum()),
                int(open_.sum()),
            )
        )
        # Not to end: -log(1 - p) of the end, whose gradient is p / (1 - p) (onehot(end) - chances).
        pull = torch.where(open_, final_chance / (1 - final_chance).clamp_min(1e-3), 0.0)
        scale = torch.where(open_, -pull, 1.0) * weight
        chances.mul_(scale[:, None])
        target = torch.where(open_, torch.tensor(end), wanted)
        chances.scatter_add_(1, target[:, None], -scale[:, None])
        grad[part] = chances @ head
        grad_head.addmm_(chances.T, states)
    share = len(leaf) / count
    other = reading * (rates[2] / count) + torch.stack(looking).sum() * (rates[3] * share)
    torch.autograd.backward([final, other], [grad[None] / count, None])
    assert model.embed.weight.grad is not None
    model.embed.weight.grad += grad_head / count
    return sums
