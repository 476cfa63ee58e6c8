"""Rows of text from files that repeats itself and goes on, where the target would have ended.

    python -m training.refrains --pieces 1500 --out training/work/packed/refrains

A table of near-repetitions looks like a target that goes round. Pieces of training files that
say 8 tokens and more again are read by the target, and kept where it gives the end some
probability. In what repeats no end is to come; the rest is text as any other. Packed as the rows
of `training.circles`, to be learned beside them.
"""

import argparse
import random
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt
from atlasd_kernels.cpu import CpuDecoder
from tokenizers import Tokenizer

from training import repeats
from training.circles import OPEN, TEXT, Piece, every, opened, packed, write
from training.fetch import HERE
from training.pack import read
from training.tokenizer import SHARES, end_id

LENGTH = 480  # tokens read of a file at once
AGAIN = 8  # repeated tokens
LEAST = 0.03  # probability of the end
BEFORE, AFTER = 260, 24  # tokens kept before the first such place and after the last


def passages(tokenizer: Tokenizer, seed: int) -> Iterator[list[int]]:
    """`LENGTH` tokens of each training file, somewhere, languages in turn; those that say `AGAIN`
    tokens again."""
    rng = random.Random(seed)
    pools = [read("train", name) for name in SHARES]
    for pool in pools:
        rng.shuffle(pool)
    while any(pools):
        for pool in pools:
            if not pool:
                continue
            text = pool.pop().text
            begin = rng.randrange(max(1, len(text) - 4 * LENGTH))
            piece = text[begin : begin + 6 * LENGTH]
            ids = tokenizer.encode(piece, add_special_tokens=False).ids[:LENGTH]
            if len(ids) == LENGTH and repeats.measures(np.array([ids]))[0].max() >= AGAIN:
                yield ids


def chances(decoder: CpuDecoder, ids: list[int], end: int) -> npt.NDArray[np.float64]:
    """Probability of the end after each of those tokens."""
    slots = np.zeros(len(ids), np.int32)
    tokens, places = np.array(ids, np.int32), np.arange(len(ids), dtype=np.int32)
    logits = decoder.forward(tokens, slots, places, every(slots)).astype(np.float64)
    logits -= logits.max(axis=1, keepdims=True)
    return np.asarray(np.exp(logits[:, end]) / np.exp(logits).sum(axis=1))


def piece(ids: list[int], chance: npt.NDArray[np.float64]) -> Piece | None:
    """Tokens and kinds around the places where an end is probable; None where none is."""
    places = np.flatnonzero(chance[:-1] > LEAST)
    if not len(places):
        return None
    run, _ = repeats.measures(np.array([ids]))
    kinds = np.where(run[0] >= AGAIN, OPEN, TEXT)
    kept = slice(max(0, int(places[0]) - BEFORE), int(places[-1]) + AFTER)
    return ids[kept], kinds[kept].tolist()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", type=Path, default=HERE.parent / "atlasd/models/bundled/target")
    parser.add_argument("--pieces", type=int, default=1500)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    decoder, tokenizer = opened(args.target, 1, LENGTH + 32)
    end = end_id(decoder.vocab_size)
    pieces: list[Piece] = []
    for tried, ids in enumerate(passages(tokenizer, args.seed)):
        found = piece(ids, chances(decoder, ids, end))
        if found:
            pieces.append(found)
        if tried % 500 == 0:
            print(f"{len(pieces)} of {tried}", flush=True)
        if len(pieces) == args.pieces:
            break
    random.Random(args.seed).shuffle(pieces)
    tokens, kinds = packed(pieces, args.length + 1, end)
    write(args.out, tokens, kinds)
    print(f"{len(tokens)} rows of {len(pieces)} pieces")


if __name__ == "__main__":
    main()
