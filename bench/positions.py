"""The position index at size: ingestion, look-ups, memory, restart. ``python -m bench.positions``.

The text is this environment's installed Python source, tokenised by the bundled model's tokenizer
where there is one (else bytes), repeated with renumbered tokens until it is long enough.
"""

from __future__ import annotations

import argparse
import resource
import sysconfig
import tempfile
from pathlib import Path
from time import perf_counter, process_time

import numpy as np
from rich.console import Console
from rich.table import Table

from atlasd.draft import positions_files
from atlasd.draft.drafter import Int32
from atlasd.draft.ngrams import LONGEST, extend_prefix_hashes
from atlasd.draft.positions_index import PositionIndex
from atlasd.draft.positions_lookup import context_of
from atlasd.errors import AtlasdError
from atlasd.models.locate import find_model
from atlasd.models.tokenizer import Tokenizer
from atlasd.paths import paths


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=10_000_000)
    parser.add_argument("--lookups", type=int, default=5_000)
    parser.add_argument("--model", help="whose tokenizer; the bundled model's otherwise")
    options = parser.parse_args()
    texts = source_texts(options.tokens, options.model)
    total = sum(len(text) for text in texts)
    index = PositionIndex(budget_bytes=60 * total)
    started, worked = perf_counter(), process_time()
    for number, text in enumerate(texts):
        index.put(str(number), "repository", "file", text)
    ingestion = total / (process_time() - worked) / 1e6
    clock = total / (perf_counter() - started) / 1e6
    table = Table("what", "measured", "at least", title=f"{total:,} tokens, {len(texts):,} files")
    table.add_row(
        "ingestion, million tokens/s of processor time (by the clock)",
        f"{ingestion:.2f} ({clock:.2f})",
        "2",
    )
    table.add_row("bytes per token", f"{index.bytes_used() / total:.1f}", "60 at most")
    seen = look_up(index, texts, options.lookups, seed=1)
    unseen = look_up(index, texts, options.lookups, seed=2, shuffled=True)
    for name, times in (("text it has", seen), ("text it has never seen", unseen)):
        half, most = np.percentile(times, [50, 99]) * 1e6
        table.add_row(f"look-up, {name}, µs median (99 %)", f"{half:.1f} ({most:.0f})", "30")
    table.add_row("edit of 20 tokens in a file, µs median", f"{edit(index, texts):.0f}", "")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "positions.index"
        started = perf_counter()
        positions_files.save(index, path, "bench")
        saved = perf_counter() - started
        fresh = PositionIndex(budget_bytes=60 * total)
        started = perf_counter()
        assert positions_files.load(fresh, path, "bench")
        loaded = perf_counter() - started
        table.add_row("save, s", f"{saved:.2f}", "")
        table.add_row("restore, s", f"{loaded:.2f}", "3 at most")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    table.add_row("peak memory of this process, two indices, MB", f"{peak}", "")
    Console().print(table)


def source_texts(wanted: int, model: str | None) -> list[Int32]:
    """Token arrays of installed source files, ``wanted`` tokens in all."""
    try:
        tokenizer = Tokenizer.load(find_model(model, paths()))
        encode = tokenizer.encode
    except AtlasdError:

        def encode(text: str, special: bool = False) -> list[int]:
            return list(text.encode())

    root = Path(sysconfig.get_path("purelib"))
    texts: list[Int32] = []
    count = 0
    for path in sorted(root.rglob("*.py")):
        if count >= min(wanted, 1_500_000):
            break
        if 500 < path.stat().st_size < 200_000:
            texts.append(np.array(encode(path.read_text("utf-8", errors="replace")), np.int32))
            count += len(texts[-1])
    originals = list(texts)
    copy = 0
    while count < wanted:
        # The same habits in other words: half of the token ids are moved elsewhere.
        copy += 1
        for text in originals:
            if count >= wanted:
                break
            moved = np.where(text % 2 == 1, (text + 7919 * copy) % 150_000, text).astype(np.int32)
            texts.append(moved)
            count += len(moved)
    return texts


def look_up(
    index: PositionIndex, texts: list[Int32], count: int, seed: int, shuffled: bool = False
) -> list[float]:
    """Seconds per look-up and reading 16 tokens from the best place."""
    random = np.random.default_rng(seed)
    times = []
    for _ in range(count):
        text = texts[random.integers(len(texts))]
        end = int(random.integers(1, len(text)))
        context = text[max(0, end - 64) : end]
        if shuffled:
            context = random.permutation(context)
        tokens = context.tolist()
        prefix = [0]
        extend_prefix_hashes(prefix, tokens[-LONGEST:])  # a stream keeps these
        started = perf_counter()
        for match in index.find(context_of(tokens, prefix))[:1]:
            index.continuation(match.segment, match.position, 16)
        times.append(perf_counter() - started)
    return times


def edit(index: PositionIndex, texts: list[Int32]) -> float:
    """Microseconds of replacing 20 tokens in the middle of a file of about 2,000."""
    times = []
    chosen = [n for n, text in enumerate(texts) if 1500 < len(text) < 2500][:100]
    for number in chosen:
        text = texts[number].copy()
        text[len(text) // 2 : len(text) // 2 + 20] = 77
        started = perf_counter()
        index.put(str(number), "repository", "file", text)
        times.append(perf_counter() - started)
    return float(np.median(times) * 1e6) if times else 0.0


if __name__ == "__main__":
    main()
