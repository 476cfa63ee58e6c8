"""Turn documents into rows of exactly `length + 1` tokens in one uint16 file, no padding.

Fill-in-the-middle documents and chat pairs are never cut; plain text fills what they leave.

    python -m training.pack --length 1024 --bytes 60000000 --out training/work/packed/a
"""

import argparse
import json
import random
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from tokenizers import Tokenizer

from training import chat, fim
from training.fetch import HERE
from training.tokenizer import SHARES, SPECIAL

FIM_SHARE = 0.5  # of the documents
HEADER_SHARE = 0.6  # of the documents, those that say which repository and file they are
CONTEXT_SHARE = 0.4  # of the holes in groups of several files, those that follow pieces of others


class Document(NamedTuple):
    project: str
    path: str
    text: str


def read(split: str, language: str) -> list[Document]:
    with (HERE / "work" / "corpus" / f"{split}-{language}.jsonl").open() as lines:
        return [Document(**json.loads(line)) for line in lines]


def choose(
    size: int, seed: int, epoch: int, shares: dict[str, float] = SHARES
) -> Iterator[list[Document]]:
    """Groups of neighbouring files, `size` bytes in all; an epoch begins where the last ended."""
    rng = random.Random(seed)
    groups: list[list[Document]] = []
    for language, share in shares.items():
        folders: defaultdict[tuple[str, str], list[Document]] = defaultdict(list)
        for document in read("train", language):
            folders[document.project, str(Path(document.path).parent)].append(document)
        pool: list[list[Document]] = []
        for files in folders.values():
            rng.shuffle(files)
            while files:
                pool.append([files.pop() for _ in range(min(len(files), rng.randint(1, 4)))])
        rng.shuffle(pool)
        budget, skip = size * share, size * share * epoch
        total = sum(len(d.text) for group in pool for d in group)
        skip %= total
        for group in pool + pool:
            length = sum(len(d.text) for d in group)
            if skip > 0:
                skip -= length
            elif budget > 0:
                budget -= length
                groups.append(group)
    rng.shuffle(groups)
    yield from groups


class Packer:
    """Collects pieces; `rows()` yields finished rows."""

    def __init__(self, tokenizer: Tokenizer, length: int, seed: int) -> None:
        self.tokenizer, self.width = tokenizer, length + 1
        self.rng = random.Random(seed)
        self.ids = {token: tokenizer.token_to_id(token) for token in SPECIAL}
        self.whole: list[list[int]] = []  # documents that must not be cut
        self.plain: list[int] = []  # text that may be cut anywhere

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids

    def _name(self, document: Document) -> list[int]:
        return [self.ids["<|repo_name|>"], *self.encode(document.project + "\n")]

    def _path(self, document: Document) -> list[int]:
        return [self.ids["<|file_sep|>"], *self.encode(document.path + "\n")]

    def add_group(self, group: list[Document]) -> None:
        """Some files of the group as fill-in-the-middle, the others together as repository text."""
        rng = self.rng
        plain = [document for document in group if rng.random() >= FIM_SHARE]
        for document in group:
            if document not in plain:
                self._add_holes(document, [other for other in group if other is not document])
        if not plain:
            return
        named = rng.random() < HEADER_SHARE
        tokens = self._name(plain[0]) if named else []
        for document in plain:
            if named:
                tokens += self._path(document) + self.encode(document.text)
            else:
                tokens += [*self.encode(document.text), self.ids[fim.END]]
        self.plain += [*tokens, self.ids[fim.END]] if named else tokens

    def _add_holes(self, document: Document, others: list[Document]) -> None:
        """One hole per window of a file; a file longer than a row gives several."""
        rng = self.rng
        left = len(document.text)
        while left > 0:
            size = rng.randint(300, int(2.6 * self.width))  # characters: about 3.3 make a token
            head: list[int] = []
            if others and rng.random() < CONTEXT_SHARE:
                size //= 2
                head = self._context(document, others, size) + self._path(document)
            elif rng.random() < HEADER_SHARE:
                head = self._name(document) + self._path(document)
            text = fim.window(document.text, size, rng)
            left -= len(text)
            tokens = head + fim.encode(
                self.encode, fim.cut(text, rng), rng.random() < 0.5, self.ids
            )
            if len(tokens) <= self.width:
                self.whole.append(tokens)

    def _context(self, document: Document, others: list[Document], size: int) -> list[int]:
        """The repository's name and pieces of one to three neighbours, about `size` characters."""
        rng = self.rng
        picked = rng.sample(others, min(len(others), rng.randint(1, 3)))
        tokens = self._name(document)
        for other in picked:
            piece = fim.window(other.text, max(100, size // len(picked)), rng)
            tokens += self._path(other) + self.encode(piece)
        return tokens

    def add_pair(self, pair: chat.Pair) -> None:
        tokens: list[int] = []
        for role, content in (("user", pair.question), ("assistant", pair.answer)):
            tokens += [self.ids["<|im_start|>"], *self.encode(f"{role}\n{content}")]
            tokens += [self.ids["<|im_end|>"], *self.encode("\n")]
        if len(tokens) <= self.width:
            self.whole.append([*tokens, self.ids[fim.END]])

    def rows(self, last: bool = False) -> Iterator[list[int]]:
        """Rows while both kinds of pieces last; with `last`, until the plain text is used up."""
        keep = 0 if last else 200_000
        while len(self.plain) >= self.width + keep:
            row: list[int] = []
            while self.whole and len(self.whole[-1]) <= self.width - len(row):
                row += self.whole.pop()
            missing = self.width - len(row)
            row += self.plain[:missing]
            del self.plain[:missing]
            yield row
        while self.whole and last:
            self.plain += self.whole.pop()
        while last and len(self.plain) >= self.width:
            yield self.plain[: self.width]
            del self.plain[: self.width]


def parse_shares(text: str) -> dict[str, float]:
    """Language -> share of the bytes, from "python,c" or "python=2,c=1"."""
    wanted = (name.partition("=") for name in text.split(","))
    shares = {name: float(share) if share else SHARES[name] for name, _, share in wanted}
    return {name: share / sum(shares.values()) for name, share in shares.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--length", type=int, default=1024)
    parser.add_argument("--bytes", type=int, default=60_000_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--epoch", type=int, default=0)
    parser.add_argument(
        "--languages",
        default=",".join(SHARES),
        help="of those, with their usual shares of the bytes, or others: python=2,c=1",
    )
    parser.add_argument(
        "--chat-share", type=float, default=0.0, help="chat pairs, of the documents"
    )
    parser.add_argument("--tokenizer", type=Path, default=HERE / "work" / "tokenizer")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    packer = Packer(
        Tokenizer.from_file(str(args.tokenizer / "tokenizer.json")), args.length, args.seed
    )
    shares = parse_shares(args.languages)
    groups = list(choose(args.bytes, args.seed, args.epoch, shares))
    pairs = chat.pairs(read("train", "python"), seed=args.seed) if args.chat_share else iter(())
    rows: list[list[int]] = []
    for number, group in enumerate(groups):
        packer.add_group(group)
        for _ in group:
            if packer.rng.random() < args.chat_share and (pair := next(pairs, None)):
                packer.add_pair(pair)
        rows += packer.rows()
        if number % 2000 == 0:
            print(
                f"{number}/{len(groups)} groups, {len(rows) * args.length / 1e6:.1f}M tokens",
                flush=True,
            )
    rows += packer.rows(last=True)
    packer.rng.shuffle(rows)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    np.array(rows, dtype=np.uint16).tofile(args.out.with_suffix(".bin"))
    args.out.with_suffix(".json").write_text(json.dumps({"width": packer.width, "rows": len(rows)}))
    print(f"{len(rows)} rows, {len(rows) * args.length / 1e6:.1f}M tokens")


if __name__ == "__main__":
    main()
