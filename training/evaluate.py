"""Measure a shipped folder on the held-out projects; prints and writes work/evaluation.json.

python -m training.evaluate --model FOLDER [--only bits,ends,holes,loops,samples] [--bytes 600000]
"""

import argparse
import json
import math
import random
import time
from collections import defaultdict
from pathlib import Path

import torch
from tokenizers import Tokenizer
from torch import Tensor
from torch.nn import functional as F

from training import fim
from training.export import CONTEXT, load
from training.fetch import HERE
from training.generate import Cache, advance, continue_all
from training.model import Decoder
from training.pack import Document, read
from training.tokenizer import SHARES

Result = dict[str, object]


class Subject:
    """A model with its tokenizer."""

    def __init__(self, folder: Path) -> None:
        self.model: Decoder = load(folder).eval()
        self.tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.end: int = self.tokenizer.token_to_id(fim.END)
        self.ids = {
            t: self.tokenizer.token_to_id(t) for t in (fim.PREFIX, fim.SUFFIX, fim.MIDDLE, fim.END)
        }

    def encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer.encode(text, add_special_tokens=False).ids
        return ids


@torch.no_grad()
def nats(model: Decoder, tokens: Tensor) -> float:
    """Sum over tokens[1:]; each is predicted from at least half a context of what precedes it."""
    total, stride = 0.0, CONTEXT // 2
    for start in range(0, max(1, len(tokens) - 1), stride):
        window = tokens[max(0, start - stride) : start + stride + 1]
        scored = min(stride, len(tokens) - 1 - start)
        states = model.hidden(window[None, :-1])[0, -scored:]
        for rows, wanted in zip(states.split(512), window[-scored:].split(512), strict=True):
            logits = F.linear(rows, model.embed.weight)
            total += float(F.cross_entropy(logits, wanted, reduction="sum"))
    return total


def bits_per_byte(subject: Subject, language: str, limit: int) -> Result:
    """Held-out files, a seeded sample of `limit` bytes, each on its own after <|endoftext|>."""
    documents = read("held_out", language)
    random.Random(0).shuffle(documents)
    size = count = 0
    total = 0.0
    for document in documents:
        if size >= limit:
            break
        ids = subject.encode(document.text)
        total += nats(subject.model, torch.tensor([subject.end, *ids]))
        size, count = size + len(document.text.encode()), count + len(ids)
    return {"bits_per_byte": total / math.log(2) / size, "bytes": size, "tokens": count}


@torch.no_grad()
def wrong_ends(subject: Subject, limit: int, led: bool) -> Result:
    """Where the end is the first choice and the text goes on, in pieces of 1,024 tokens of held-out
    files, `limit` bytes of each language; led: each after <|endoftext|>, as prompts of engines."""
    wrong = count = 0
    within = []
    for language in SHARES:
        documents = read("held_out", language)
        random.Random(0).shuffle(documents)
        size = 0
        while size < limit and documents:
            document = documents.pop(0)
            size += len(document.text.encode())
            ids = torch.tensor(subject.encode(document.text))
            for piece in ids.split(1024):
                start = torch.tensor([subject.end] if led else [], dtype=torch.long)
                firsts = subject.model.logits(torch.cat((start, piece))[None, :-1])[0].argmax(-1)
                found = int((firsts == subject.end).sum())
                wrong, count = wrong + found, count + len(firsts)
                within.append(found > 0)
    return {
        "per_10000": wrong * 10_000 / count,
        "tokens": count,
        "pieces": len(within),
        "pieces_with_one": sum(within),
    }


def holes(subject: Subject, count: int, suffix_first: bool) -> Result:
    """Rest-of-line holes in held-out Python: 1,000 characters before the cursor, 500 after it."""
    rng = random.Random(7)
    documents = read("held_out", "python")
    by_length: defaultdict[int, list[tuple[list[int], str]]] = defaultdict(list)
    tried = 0
    while tried < count:
        hole = fim.rest_of_line(rng.choice(documents).text, rng)
        if hole is None:
            continue
        tried += 1
        before, after = subject.encode(hole.prefix[-1000:]), subject.encode(hole.suffix[:500])
        # Prompts of one length are decoded together: what is farthest from the cursor gives way.
        before = before[(len(before) + len(after)) % 64 if len(before) >= 64 else 0 :]
        first, second = (subject.ids[fim.PREFIX], *before), (subject.ids[fim.SUFFIX], *after)
        parts = (second, first) if suffix_first else (first, second)
        prompt = [*parts[0], *parts[1], subject.ids[fim.MIDDLE]]
        by_length[len(prompt)].append((prompt, hole.middle))
    exact = 0
    for group in by_length.values():
        made = continue_all(subject.model, [prompt for prompt, _ in group], 64, subject.end)
        exact += sum(
            subject.tokenizer.decode(m) == wanted
            for m, (_, wanted) in zip(made, group, strict=True)
        )
    return {"exact": exact / count, "holes": count}


def continued_holes(subject: Subject, count: int) -> Result:
    """The same holes continued from what is left of the cursor alone, its last token healed."""
    rng = random.Random(7)
    documents = read("held_out", "python")
    spellings = [subject.tokenizer.decode([token]) for token in range(subject.end)]
    tried = exact = 0
    while tried < count:
        hole = fim.rest_of_line(rng.choice(documents).text, rng)
        if hole is None:
            continue
        tried += 1
        ids = [subject.end, *subject.encode(hole.prefix[-1000:])]
        typed = spellings[ids[-1]] if len(ids) > 1 else ""
        begins = torch.tensor([at for at, text in enumerate(spellings) if text.startswith(typed)])
        cache = Cache(subject.model, len(ids) + 64)
        logits = advance(subject.model, torch.tensor([ids[:-1] if typed else ids]), cache)[0]
        token = int(begins[logits[begins].argmax()])
        text = spellings[token]
        while "\n" not in text and len(text) < len(typed) + len(hole.middle) + 20:
            logits = advance(subject.model, torch.tensor([[token]]), cache)[0]
            token = int(logits.argmax())
            if token >= subject.end or cache.length + 1 >= len(ids) + 64:
                break
            text += spellings[token]
        exact += text[len(typed) :].split("\n")[0] == hole.middle
    return {"exact": exact / count, "holes": count}


def is_loop(tokens: list[int]) -> bool:
    """The end repeats, with a period of at most 50 tokens, three times and over 30 tokens."""
    return any(
        len(tokens) >= (size := max(3 * period, 30))
        and tokens[-size + period :] == tokens[-size:-period]
        for period in range(1, 51)
    )


def prompts(subject: Subject, count: int, length: int = 400) -> list[tuple[Document, list[int]]]:
    """The first `length` tokens of `count` held-out files that are longer, languages in turn."""
    rng = random.Random(3)
    pools = [read("held_out", language) for language in SHARES]
    for pool in pools:
        rng.shuffle(pool)
    found: list[tuple[Document, list[int]]] = []
    while len(found) < count and any(pools):
        for pool in pools:
            while pool and len(found) < count:
                document = pool.pop()
                ids = subject.encode(document.text)
                if len(ids) > length + 200:
                    found.append((document, ids[:length]))
                    break
    return found


def loops(subject: Subject, count: int) -> Result:
    started = [prompt for _, prompt in prompts(subject, count)]
    made = continue_all(subject.model, started, 200, subject.end)
    looped = sum(map(is_loop, made))
    ended = sum(len(text) < 200 for text in made)
    return {"loop_rate": looped / count, "ended": ended / count, "files": count}


def samples(subject: Subject, count: int) -> list[Result]:
    found = prompts(subject, count)
    made = continue_all(subject.model, [prompt for _, prompt in found], 120, subject.end)
    decode = subject.tokenizer.decode
    return [
        {"path": document.path, "prompt": decode(prompt[-60:]), "continuation": decode(text)}
        for (document, prompt), text in zip(found, made, strict=True)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", type=Path, default=HERE.parent / "atlasd/models/bundled/target")
    parser.add_argument("--only", default="bits,ends,holes,loops,samples")
    parser.add_argument("--bytes", type=int, default=600_000, help="of each language")
    parser.add_argument("--holes", type=int, default=500)
    parser.add_argument("--files", type=int, default=100, help="continued to look for loops")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=HERE / "work" / "evaluation.json")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    subject = Subject(args.model)
    found: dict[str, object] = {}
    began = time.monotonic()
    if "bits" in args.only:
        for language in SHARES:
            found[language] = bits_per_byte(subject, language, args.bytes)
            print(language, found[language], flush=True)
    if "ends" in args.only:
        for name, led in (("wrong ends", False), ("wrong ends, led", True)):
            found[name] = wrong_ends(subject, 40_000, led)
            print(name, found[name], flush=True)
    if "holes" in args.only:
        for name, first in (("suffix first", True), ("prefix first", False)):
            found[f"holes, {name}"] = holes(subject, args.holes, first)
            print(name, found[f"holes, {name}"], flush=True)
        found["holes, continued"] = continued_holes(subject, args.holes)
        print("continued", found["holes, continued"], flush=True)
    if "loops" in args.only:
        found["loops"] = loops(subject, args.files)
        print(found["loops"], flush=True)
    if "samples" in args.only:
        found["samples"] = samples(subject, 5)
        print(json.dumps(found["samples"], indent=1))
    found["seconds"] = time.monotonic() - began
    args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
