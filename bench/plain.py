"""Plain decoding: tokens per second of the exact decoders against ``transformers.generate``.

    python -m bench.plain [--model bundled|FOLDER] [--prompt 512] [--tokens 64] [--rounds 9]

Every round runs all candidates one after the other on the same prompt, so that whatever else the
machine does meets all of them. What counts is the median time between two tokens; ratios are per
round, and their median and spread are what to read. CPU time is given beside wall time: with one
thread it leaves out the waiting for other programs. Without ``--model``, a random checkpoint in the
Qwen2 layout is made (13.7M parameters).
"""

from __future__ import annotations

import argparse
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
from atlasd.models.load import LoadOptions, WeightFormat, load_decoder
from atlasd.models.locate import BUNDLED, find_model
from bench.generating import generate
from bench.shapes import SHAPES

REFERENCE = "transformers.generate"
FORMATS: dict[str, WeightFormat] = {"float32": "fp32", "bfloat16": "bf16"}


class Stopwatch:
    """Notes when each token was there; also a streamer for ``transformers.generate``."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def put(self, tokens: torch.Tensor | None = None) -> None:
        self.wall.append(time.perf_counter())
        self.cpu.append(time.process_time())

    def end(self) -> None:
        pass

    def medians(self) -> tuple[float, float]:
        """Median seconds from token to token, by the wall and by the CPU. The first two stamps are
        the prompt and the first token, which are prefill."""
        gaps = (np.diff(self.wall[1:]), np.diff(self.cpu[1:]))
        return float(np.median(gaps[0])), float(np.median(gaps[1]))


@dataclass
class Candidate:
    """Something that continues a prompt greedily, and its seconds per token in each round."""

    name: str
    generate: Callable[[list[int], int, Stopwatch], None]
    wall: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)

    def measure(self, prompt: list[int], count: int) -> None:
        """One round."""
        watch = Stopwatch()
        self.generate(prompt, count, watch)
        wall, cpu = watch.medians()
        self.wall.append(wall)
        self.cpu.append(cpu)


def random_checkpoint(folder: Path, dtype: torch.dtype) -> Path:
    """A Qwen2-layout checkpoint with random weights."""
    torch.manual_seed(0)
    config = transformers.Qwen2Config(**SHAPES["14M"].as_json())
    target = folder / "random"
    transformers.Qwen2ForCausalLM(config).to(dtype).save_pretrained(target)
    return target


def decoding(decoder: Decoder) -> Callable[[list[int], int, Stopwatch], None]:
    """Greedy decoding, one row a step."""

    def run(prompt: list[int], count: int, watch: Stopwatch) -> None:
        watch.put()
        tokens = np.array(prompt, np.int32)
        rows = decoder.prefill_rows
        for first in range(0, len(tokens), rows):
            part = tokens[first : first + rows]
            positions = np.arange(first, first + len(part), dtype=np.int32)
            last = np.array([len(part) - 1], np.int32)
            logits = decoder.forward(part, np.zeros_like(part), positions, last, prefill=True)
        slot = np.zeros(1, np.int32)
        for position in range(len(tokens), len(tokens) + count):
            token = int(logits[0].argmax())
            watch.put()
            at = np.array([position], np.int32)
            logits = decoder.forward(np.array([token], np.int32), slot, at, slot)

    return run


def reference(model: transformers.PreTrainedModel) -> Callable[[list[int], int, Stopwatch], None]:
    """``transformers.generate``."""

    def run(prompt: list[int], count: int, watch: Stopwatch) -> None:
        generate(model, torch.tensor([prompt]), count, streamer=watch)

    return run


def report(candidates: list[Candidate]) -> None:
    """Milliseconds per token and the ratio of speeds, with the middle half of the rounds."""
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


def profile(decoder: Decoder, position: int, steps: int = 30) -> None:
    """Where the time of a torch decode step goes."""
    row, at = np.zeros(1, np.int32), np.full(1, position, np.int32)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profiled:
        for _ in range(steps):
            decoder.forward(row, row, at, row)
    spent = {event.key: event.self_cpu_time_total / steps for event in profiled.key_averages()}
    parts = {
        "matmuls of the weights": ("aten::mm", "aten::addmm"),
        "attention": ("aten::baddbmm", "aten::bmm", "aten::_softmax"),
    }
    total = sum(spent.values())
    print(f"  profile of a torch step: {total:.0f} microseconds, the profiler included")
    for name, events in parts.items():
        part = sum(spent.pop(event, 0.0) for event in events)
        print(f"    {name:28}{part:9.0f}{part / total:9.0%}")
    print(
        f"    {'other operations':28}{sum(spent.values()):9.0f}{sum(spent.values()) / total:9.0%}"
    )


def compare(folder: Path, arguments: argparse.Namespace, dtype: torch.dtype) -> None:
    """All candidates on one checkpoint."""
    files = find_model(str(folder))
    model = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=dtype).eval()
    candidates = [Candidate(REFERENCE, reference(model))]
    backends = ["torch", "native"] if arguments.backend == "all" else [arguments.backend]
    profiled: Decoder | None = None
    for backend in backends:
        options = LoadOptions(
            device="cpu",
            backend=backend,
            weight_format=FORMATS[str(dtype).removeprefix("torch.")],
            slots=1,
            slot_tokens=arguments.prompt + arguments.tokens,
            threads=arguments.threads,
        )
        loaded = load_decoder(files, options)
        name = f"atlasd, {loaded.backend} ({loaded.weight_format})"
        candidates.append(Candidate(name, decoding(loaded.decoder)))
        if backend == "torch":
            profiled = loaded.decoder
    torch.set_num_threads(arguments.threads)
    random = np.random.default_rng(0)
    for number in range(arguments.rounds + 1):
        prompt = random.integers(0, model.config.vocab_size, arguments.prompt).tolist()
        for each in candidates if number % 2 else candidates[::-1]:
            each.measure(prompt, arguments.tokens)
    for each in candidates:
        del each.wall[0], each.cpu[0]
    print(
        f"{folder.name}: {loaded.config.parameters / 1e6:.1f}M parameters, transformers in {dtype},"
        f" {arguments.threads} thread(s)"
    )
    report(candidates)
    if profiled is not None:
        profile(profiled, arguments.prompt)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", help=f"a checkpoint folder, or {BUNDLED!r}")
    parser.add_argument("--dtype", choices=list(FORMATS), action="append")
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
    for name in arguments.dtype or FORMATS:
        dtype = getattr(torch, name)
        with tempfile.TemporaryDirectory() as made:
            if arguments.model:
                folder = find_model(arguments.model).path
            else:
                folder = random_checkpoint(Path(made), dtype)
            compare(folder, arguments, dtype)


if __name__ == "__main__":
    main()
