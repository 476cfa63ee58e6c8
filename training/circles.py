"""Rows in which the target went round, and where each piece of them had better have ended.

    python -m training.circles --pieces 7000 --out training/work/packed/circles

A piece is the beginning of a training file or a part of one, followed by what the target says,
greedily and never allowed to end, until it has gone round for the third time. Pieces are packed to
rows of the run's length, each ended by <|endoftext|>, so that none sees another. OUT.bin has the
tokens, OUT.kinds what is to be learned after each.
"""

import argparse
import json
import random
from itertools import islice
from pathlib import Path

import numpy as np
import numpy.typing as npt
from atlasd_kernels.cpu import CpuDecoder
from tokenizers import Tokenizer

from atlasd.models.load import LoadOptions, load_decoder
from atlasd.models.locate import folder_model
from training import chat, repeats
from training.fetch import HERE
from training.pack import read
from training.tokenizer import SHARES, end_id

TEXT, OPEN, END, BESIDE, NOTHING = range(5)
"""After a token: what the data says; anything but the end; the end; the end, though not where it is
best; no matter what."""
WRITTEN = 184  # tokens of the target at most; it is looked at in blocks
BLOCK = 46
LEAST = 130  # of a piece: more than two copies
DOUBT = 6  # repeated tokens
AFTER = 6  # tokens from where it is a loop to the end of the piece
TOGETHER = 64
LENGTHS = (64, 100, 150, 220, 300, 400)  # of prompts
FILES = {"python": 16_000, "rust": 6_000, "typescript": 6_000, "c": 6_000, "go": 6_000}

Int32 = npt.NDArray[np.int32]
Piece = tuple[list[int], list[int]]


class Prompts:
    """Pieces of training files, and beginnings of answers in chat; every file once."""

    def __init__(self, tokenizer: Tokenizer, seed: int) -> None:
        self.tokenizer, self.rng = tokenizer, random.Random(seed)
        self.texts = []
        for name in SHARES:
            documents = read("train", name)
            chosen = self.rng.sample(documents, min(FILES[name], len(documents)))
            if name == "python":
                self.pairs = list(islice(chat.pairs(chosen[:3000], seed), 1500))
            self.texts += [document.text for document in chosen]
        self.rng.shuffle(self.texts)

    def draw(self, length: int) -> list[int]:
        """`length` tokens, of a file's beginning in half of the cases."""
        while self.texts:
            text = self.texts.pop()
            begin = 0
            if self.rng.random() < 0.5:
                begin = self.rng.randrange(max(1, len(text) - 4 * length))
            piece = text[begin : begin + 8 * length]
            ids = self.tokenizer.encode(piece, add_special_tokens=False).ids
            if len(ids) >= length:
                return list(ids[:length])
        raise RuntimeError("every file has been used")

    def ask(self, length: int) -> list[int]:
        """A question and as much of its answer as `length` tokens hold."""
        while True:
            pair = self.pairs.pop()
            text = f"<|im_start|>user\n{pair.question}<|im_end|>\n<|im_start|>assistant\n"
            ids = self.tokenizer.encode(text + pair.answer, add_special_tokens=False).ids
            if len(ids) >= length:
                return list(ids[:length])


def continued(decoder: CpuDecoder, prompts: list[list[int]], never: int) -> list[Piece]:
    """Pieces of those prompts (of one length) that go round within `WRITTEN` tokens."""
    count, length = len(prompts), len(prompts[0])
    rows = np.zeros((count, length + WRITTEN), np.int32)
    rows[:, :length] = prompts
    none = np.empty(0, np.int32)
    for slot in range(count):
        places = np.arange(length - 1, dtype=np.int32)
        decoder.forward(rows[slot, : length - 1].copy(), np.full_like(places, slot), places, none)
    open_rows, done = np.arange(count, dtype=np.int32), []
    for block in range(length, length + WRITTEN, BLOCK):
        for at in range(block, block + BLOCK):
            places = np.full(len(open_rows), at - 1, np.int32)
            logits = decoder.forward(rows[open_rows, at - 1], open_rows, places, every(open_rows))
            logits[:, never] = -np.inf
            rows[open_rows, at] = logits.argmax(axis=1)
        written = rows[open_rows, : block + BLOCK].astype(np.int64)
        found = repeats.turns(written, length)
        for row, *places in zip(written, *(place.tolist() for place in found), strict=True):
            turn = repeats.Turn(*places)
            if turn.loop + AFTER < block + BLOCK:
                done.append(piece(row[: turn.loop + AFTER + 1], length, turn))
        open_rows = open_rows[found.loop + AFTER >= block + BLOCK]
        if not len(open_rows):
            break
    return done


def every(slots: Int32) -> Int32:
    """Every row's logits are wanted."""
    return np.arange(len(slots), dtype=np.int32)


def piece(row: npt.NDArray[np.int64], given: int, turn: repeats.Turn) -> Piece:
    """Tokens and kinds: the target's own words are not learned, only where to end. An end in the
    second copy costs nothing from `DOUBT` tokens on, and is wanted once that is whole."""
    kinds = np.full(len(row), TEXT)
    kinds[given - 1 :] = OPEN
    kinds[turn.begin + DOUBT :] = NOTHING
    kinds[turn.whole :] = BESIDE
    kinds[turn.ripe :] = END
    kinds[turn.loop :] = BESIDE
    return row.tolist(), kinds.tolist()


def packed(pieces: list[Piece], width: int, end: int) -> tuple[list[list[int]], list[list[int]]]:
    """Rows of `width`; a piece that does not fit loses its beginning, a remnant is filled up."""
    tokens: list[list[int]] = [[]]
    kinds: list[list[int]] = [[]]
    for text, wanted in pieces:
        room = width - len(tokens[-1])
        if room < LEAST:
            tokens[-1] += [end] * room
            kinds[-1] += [NOTHING] * room
            tokens.append([])
            kinds.append([])
            room = width
        tokens[-1] += [*text, end][-room:]
        kinds[-1] += [*wanted, NOTHING][-room:]
    return tokens[:-1], kinds[:-1]


def write(out: Path, tokens: list[list[int]], kinds: list[list[int]]) -> None:
    """OUT.bin, OUT.kinds and their shape."""
    if not tokens:
        raise SystemExit("Too few pieces to fill a row: ask for more with --pieces.")
    out.parent.mkdir(parents=True, exist_ok=True)
    np.array(tokens, np.uint16).tofile(out.with_suffix(".bin"))
    np.array(kinds, np.uint8).tofile(out.with_suffix(".kinds"))
    shape = {"width": len(tokens[0]), "rows": len(tokens)}
    out.with_suffix(".json").write_text(json.dumps(shape))


def opened(target: Path, slots: int, slot_tokens: int) -> tuple[CpuDecoder, Tokenizer]:
    """A target to be read natively, and its tokenizer."""
    options = LoadOptions(weight_format="bf16", slots=slots, slot_tokens=slot_tokens, threads=1)
    files = folder_model(target, name="target", source="folder")
    decoder = load_decoder(files, options).decoder
    assert isinstance(decoder, CpuDecoder)
    return decoder, Tokenizer.from_file(str(target / "tokenizer.json"))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", type=Path, default=HERE.parent / "atlasd/models/bundled/target")
    parser.add_argument("--pieces", type=int, default=7000)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    decoder, tokenizer = opened(args.target, TOGETHER, 640)
    prompts, end = Prompts(tokenizer, args.seed), end_id(decoder.vocab_size)
    rng = random.Random(args.seed)
    pieces: list[Piece] = []
    tried = 0
    while len(pieces) < args.pieces:
        length = rng.choice(LENGTHS)
        asked = length == LENGTHS[0] and len(prompts.pairs) > 400
        started = [(prompts.ask if asked else prompts.draw)(length) for _ in range(TOGETHER)]
        pieces += continued(decoder, started, end)
        tried += TOGETHER
        print(f"{len(pieces)} of {tried} went round", flush=True)
    rng.shuffle(pieces)
    tokens, kinds = packed(pieces, args.length + 1, end)
    write(args.out, tokens, kinds)
    shares = np.bincount(np.array(kinds).ravel(), minlength=5) / np.array(kinds).size
    print(f"{len(tokens)} rows; text, open, end, beside, nothing: {shares.round(3).tolist()}")


if __name__ == "__main__":
    main()
