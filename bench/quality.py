"""What a weight format costs in quality: bits per byte, and how often its first choice is bf16's.

    python -m bench.quality [--model NAME] [--formats bf16,int8,int4] [--bytes 60000] [FILE ...]

The text is this repository's own source, which was written after any training set, unless files
are given. Every token is predicted from at least half a window of what precedes it.
"""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path

import numpy as np

from atlasd.models.load import LoadOptions, load_decoder
from atlasd.models.locate import find_model
from atlasd.models.tokenizer import Tokenizer
from atlasd.paths import paths
from bench.report import table

ROOT = Path(__file__).resolve().parents[1]
WINDOW = 512


def read(files: list[Path], most: int) -> list[str]:
    """Texts of about ``most`` bytes together."""
    texts, size = [], 0
    for path in files:
        if size >= most:
            break
        texts.append(path.read_text(errors="replace")[: most - size])
        size += len(texts[-1].encode())
    return texts


def windows(count: int) -> list[tuple[int, int]]:
    """(first token, first scored token) of each window over a text of ``count`` tokens."""
    half = WINDOW // 2
    starts = range(0, max(1, count - half), half)
    return [(start, start + half if start else 1) for start in starts]


def score(decoder, ids: list[int]) -> tuple[float, list[int]]:  # type: ignore[no-untyped-def]
    """Nats of a text's tokens but the first, and the first choice before each of them."""
    nats, choices = 0.0, []
    for start, scored in windows(len(ids)):
        tokens = np.array(ids[start : start + WINDOW], np.int32)
        rows = np.arange(len(tokens), dtype=np.int32)
        wanted = rows[scored - 1 - start : -1]
        if not len(wanted):
            continue
        logits = decoder.forward(tokens, rows * 0, rows, wanted, prefill=True).astype(np.float64)
        choices += logits.argmax(axis=1).tolist()
        most = logits.max(axis=1)
        totals = most + np.log(np.exp(logits - most[:, None]).sum(axis=1))
        nats += float((totals - logits[np.arange(len(wanted)), tokens[wanted + 1]]).sum())
    return nats, choices


def measure(options: argparse.Namespace) -> str:
    files = find_model(options.model, paths())
    tokenizer = Tokenizer.load(files)
    given = options.files or sorted((ROOT / "atlasd").rglob("*.py"))
    texts = read(given, options.bytes)
    size = sum(len(text.encode()) for text in texts)
    encoded = [tokenizer.encode(text) for text in texts]
    encoded = [ids for ids in encoded if len(ids) > 1]
    rows: list[list[object]] = []
    reference: list[int] | None = None
    bits = first_bits = 0.0
    for weight_format in options.formats.split(","):
        load = LoadOptions(
            weight_format=weight_format, slots=1, slot_tokens=WINDOW, threads=options.threads
        )
        loaded = load_decoder(files, load)
        nats, choices = 0.0, []
        for number, ids in enumerate(encoded):
            some, chosen = score(loaded.decoder, ids)
            nats += some
            choices += chosen
            print(f"\r{weight_format}: {number + 1} of {len(encoded)}", end="", file=sys.stderr)
        print(file=sys.stderr)
        bits = nats / math.log(2) / size
        reference, first_bits = reference or choices, first_bits or bits
        same = float(np.mean(np.array(choices) == np.array(reference)))
        memory = loaded.decoder.memory_bytes()["weights"] / 1e6
        cells = [weight_format, f"{memory:.1f}", f"{bits:.4f}", f"{bits / first_bits - 1:+.2%}"]
        rows.append([*cells, f"{same:.2%}"])
        loaded.decoder.close()
    first = options.formats.split(",")[0]
    return table(
        f"Quality of weight formats ({files.name}, {size} bytes)",
        ["weights", "MB", "bits per byte", f"over {first}", f"first choice as {first}'s"],
        rows,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("files", nargs="*", type=Path)
    parser.add_argument("--model")
    parser.add_argument("--formats", default="bf16,int8,int4")
    parser.add_argument("--bytes", type=int, default=60_000)
    parser.add_argument("--threads", type=int, default=1)
    print(measure(parser.parse_args()))
