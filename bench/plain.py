"""Plain decoding: tokens per second of the exact decoders against ``transformers.generate``.

    python bench/plain.py [--model FOLDER] [--prompt 512] [--tokens 64] [--rounds 9] [--threads 1]

Every round runs all candidates one after the other on the same prompt, so that whatever else the
machine does meets all of them; ratios are per round, and their median and spread are what to read.
Without ``--model``, a random checkpoint of the bundled model's size (Qwen2 layout) is made.
CPU time is given beside wall time: with one thread it leaves out the waiting for other programs.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
import transformers

from atlasd.models.decoder import Decoder
from atlasd.models.load import LoadOptions, load_decoder
from atlasd.models.locate import find_model

REFERENCE = "transformers.generate"


@dataclass
class Candidate:
    """Something that continues a prompt greedily, and how long it took in each round."""

    name: str
    generate: Callable[[list[int], int], list[int]]
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)


def random_checkpoint(folder: Path, dtype: torch.dtype) -> Path:
    """A Qwen2-layout checkpoint of the bundled model's size with random weights."""
    torch.manual_seed(0)
    config = transformers.Qwen2Config(
        vocab_size=8192,
        hidden_size=448,
        intermediate_size=1152,
        num_hidden_layers=5,
        num_attention_heads=7,
        num_key_value_heads=1,
        max_position_embeddings=4096,
        tie_word_embeddings=True,
        eos_token_id=None,
        bos_token_id=None,
    )
    target = folder / str(dtype).removeprefix("torch.")
    transformers.Qwen2ForCausalLM(config).to(dtype).save_pretrained(target)
    return target


def decode(decoder: Decoder, prompt: list[int], count: int) -> list[int]:
    """Greedy decoding, one row a step."""
    slot = np.zeros(1, np.int32)
    tokens = np.array(prompt, np.int32)
    positions = np.arange(len(tokens), dtype=np.int32)
    rows = decoder.prefill_rows
    for first in range(0, len(tokens), rows):
        part = slice(first, first + rows)
        last = first + rows >= len(tokens)
        wanted = np.array([len(tokens[part]) - 1] if last else [], np.int32)
        slots = np.zeros(len(tokens[part]), np.int32)
        logits = decoder.forward(tokens[part], slots, positions[part], wanted, prefill=True)
    output = [int(logits[0].argmax())]
    while len(output) < count:
        at = np.array([len(prompt) + len(output) - 1], np.int32)
        logits = decoder.forward(np.array(output[-1:], np.int32), slot, at, slot)
        output.append(int(logits[0].argmax()))
    return output


def reference(model: transformers.PreTrainedModel) -> Callable[[list[int], int], list[int]]:
    """``transformers.generate`` as a user would call it, made to reach the full length."""

    def generate(prompt: list[int], count: int) -> list[int]:
        given = torch.tensor([prompt])
        out = model.generate(
            given,
            attention_mask=torch.ones_like(given),
            max_new_tokens=count,
            min_new_tokens=count,
            do_sample=False,
            pad_token_id=0,
        )
        return [int(token) for token in out[0, len(prompt) :]]

    return generate


def measure(candidate: Candidate, prompt: list[int], count: int) -> None:
    """One round: time of ``count`` tokens less the time of one, so that prefill does not count."""
    spent = []
    for length in (1, count):
        wall, cpu = time.perf_counter(), time.process_time()
        candidate.generate(prompt, length)
        spent.append((time.perf_counter() - wall, time.process_time() - cpu))
    candidate.wall.append((spent[1][0] - spent[0][0]) / (count - 1))
    candidate.cpu.append((spent[1][1] - spent[0][1]) / (count - 1))


def report(candidates: list[Candidate]) -> None:
    """Median milliseconds per token and the ratio of speeds, with the middle half of the rounds."""
    base = next(each for each in candidates if each.name == REFERENCE)
    heads = (
        ("ms/token", 9),
        ("tokens/s", 10),
        ("ratio", 8),
        ("middle half", 16),
        ("by CPU time", 13),
    )
    print("  " + " " * 28 + "".join(f"{name:>{width}}" for name, width in heads))
    for each in candidates:
        wall = statistics.median(each.wall)
        ratios = [theirs / ours for theirs, ours in zip(base.wall, each.wall, strict=True)]
        busy = [theirs / ours for theirs, ours in zip(base.cpu, each.cpu, strict=True)]
        low, _, high = statistics.quantiles(ratios, n=4)
        print(
            f"  {each.name:28}{wall * 1e3:9.2f}{1 / wall:10.1f}{statistics.median(ratios):7.2f}x"
            f"{f'{low:.2f} to {high:.2f}':>16}{statistics.median(busy):12.2f}x"
        )


def compare(folder: Path, arguments: argparse.Namespace, dtype: torch.dtype) -> None:
    """All candidates on one checkpoint."""
    files = find_model(str(folder))
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    candidates = [Candidate(REFERENCE, reference(model))]
    backends = ["torch", "native"] if arguments.backend == "all" else [arguments.backend]
    for backend in backends:
        options = LoadOptions(
            device="cpu",
            backend=backend,
            slots=1,
            slot_tokens=arguments.prompt + arguments.tokens,
            threads=arguments.threads,
        )
        loaded = load_decoder(files, options)
        name = f"atlasd, {loaded.backend} ({loaded.weight_format})"
        decoder = loaded.decoder
        candidates.append(
            Candidate(name, lambda prompt, count, decoder=decoder: decode(decoder, prompt, count))
        )
    torch.set_num_threads(arguments.threads)
    random = np.random.default_rng(0)
    for number in range(arguments.rounds + 1):
        prompt = random.integers(0, model.config.vocab_size, arguments.prompt).tolist()
        order = candidates if number % 2 else candidates[::-1]
        for each in order:
            measure(each, prompt, arguments.tokens)
    for each in candidates:
        del each.wall[0], each.cpu[0]
    print(f"{folder.name}, transformers in {dtype}, {arguments.threads} thread(s)")
    report(candidates)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", type=Path)
    parser.add_argument("--dtype", choices=["float32", "bfloat16"], action="append")
    parser.add_argument("--backend", choices=["all", "torch", "native"], default="all")
    parser.add_argument("--prompt", type=int, default=512, help="prompt tokens")
    parser.add_argument("--tokens", type=int, default=64, help="tokens decoded per round")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--threads", type=int, default=1)
    arguments = parser.parse_args()
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    torch.set_num_threads(arguments.threads)
    torch.set_grad_enabled(False)
    for name in arguments.dtype or ["float32", "bfloat16"]:
        dtype = getattr(torch, name)
        with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stderr(io.StringIO()):
            compare(arguments.model or random_checkpoint(Path(folder), dtype), arguments, dtype)


if __name__ == "__main__":
    main()
