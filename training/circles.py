"""Rows that go round, and where each had better have ended."""

import random
from collections.abc import Callable
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from training import chat, repeats
from training.generate import Cache, advance
from training.model import Decoder
from training.pack import read
from training.tokenizer import SHARES

WRITTEN = 112  # tokens of the model's own at a row's end
WINDOW = 48  # tokens after the second copy's end; what follows them is not looked at
LEVELS = (2, 4, 8, 12, 16, 24)  # repeated tokens that are told apart


class Lesson(NamedTuple):
    """Rows [n, width] and what is wanted after each of their tokens."""

    tokens: Tensor
    stop: Tensor  # bool: the end
    held: Tensor  # bool: what the unchanged model wants; neither: no matter what
    early: Tensor  # bool: before it is a loop
    levels: Tensor  # bool [n, width, levels]: it repeats at least as many tokens


def lesson(tokens: Tensor, written: int) -> Lesson:
    """Rows whose last `written` tokens are the model's own; 0: rows of the data, never to end."""
    rows, width = tokens.numpy(), tokens.shape[1]
    places = torch.arange(width)[None]
    twice, loop = (
        torch.from_numpy(place)[:, None] for place in repeats.turns(rows, width - written)
    )
    run = torch.from_numpy(repeats.longest_run(rows))
    return Lesson(
        tokens,
        stop=(places >= twice) & (places < twice + WINDOW),
        held=places < twice,
        early=places < loop,
        levels=torch.stack([run >= level for level in LEVELS], dim=-1),
    )


@torch.no_grad()
def continued(model: Decoder, prompts: list[list[int]], never: int) -> Tensor:
    """Prompts of one length, each with `WRITTEN` tokens after it: greedy, `never` left out."""
    cache = Cache(model, len(prompts[0]) + WRITTEN, len(prompts))
    rows = new = torch.tensor(prompts)
    for _ in range(WRITTEN):
        logits = advance(model, new, cache)
        logits[:, never] = -torch.inf
        new = logits.argmax(dim=-1, keepdim=True)
        rows = torch.cat((rows, new), dim=1)
    return rows


def repeated(rows: Tensor, rng: np.random.Generator) -> Tensor:
    """The rows with their last `WRITTEN` tokens replaced by what stood before them, again and
    again: circles of every period, whether the model would go into them or not."""
    rows, begin = rows.clone(), rows.shape[1] - WRITTEN
    for row in rows:
        period = int(rng.integers(1, 41))
        row[begin:] = row[begin - period : begin].repeat(WRITTEN // period + 1)[:WRITTEN]
    return rows


class Prompts:
    """Pieces of training files, languages alike, and beginnings of answers in chat."""

    def __init__(self, encode: Callable[[str], list[int]], seed: int, files: int) -> None:
        rng = random.Random(seed)
        self.encode = encode
        self.pools = {name: rng.sample(read("train", name), files) for name in SHARES}
        self.pairs = list(islice(chat.pairs(self.pools["python"], seed), 800))

    def draw(self, rng: random.Random, count: int, length: int) -> list[list[int]]:
        """`count` of exactly `length` tokens; half begin where a file does."""
        found: list[list[int]] = []
        while len(found) < count:
            text = rng.choice(self.pools[rng.choice(list(self.pools))]).text
            begin = rng.randrange(max(1, len(text) - 4 * length)) if rng.random() < 0.5 else 0
            ids = self.encode(text[begin : begin + 8 * length])
            if len(ids) >= length:
                found.append(ids[:length])
        return found

    def ask(self, rng: random.Random, count: int, length: int) -> list[list[int]]:
        found: list[list[int]] = []
        while len(found) < count:
            pair = rng.choice(self.pairs)
            text = f"<|im_start|>user\n{pair.question}<|im_end|>\n<|im_start|>assistant\n"
            ids = self.encode(text + pair.answer)
            if len(ids) >= length:
                found.append(ids[:length])
        return found


def own_rows(model: Decoder, prompts: Prompts, end: int, seed: int) -> Lesson:
    """Some 90 rows the model wrote the end of, a quarter of them circles that it did not write."""
    rng, generator = random.Random(seed), np.random.default_rng(seed)
    length = rng.choices((64, 112, 200, 400), (1, 4, 3, 2))[0]
    count = 96 if length < 400 else 64
    started = (prompts.ask if length == 64 else prompts.draw)(rng, count, length)
    made = continued(model, started, end)
    made[: count // 4] = repeated(made[: count // 4], generator)
    return lesson(made, WRITTEN)


def picked(rows: Lesson, numbers: Tensor) -> Lesson:
    return Lesson(*(part[numbers] for part in rows))
