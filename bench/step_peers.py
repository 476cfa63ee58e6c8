"""What bench.step compares with: transformers in this process, llama-bench in its own."""

from __future__ import annotations

import json
import shlex
import subprocess
import time
from pathlib import Path
from typing import Any

import numpy as np
from atlasd_kernels.cpu import CpuDecoder, choose

from bench.shapes import Shape


def plain(decoder: CpuDecoder, count: int) -> float:
    """Greedy decoding of ``count`` tokens from an empty slot; tokens per second."""
    token, zero = np.array([5], np.int32), np.zeros(1, np.int32)
    began = time.perf_counter()
    for position in range(count):
        logits = decoder.forward(token, zero, zero + np.int32(position), zero)
        token = choose(logits)
    return count / (time.perf_counter() - began)


class Transformers:
    """``generate`` in bf16, as a user would call it."""

    weight_format = "bf16"

    def __init__(self, folder: Path, shape: Shape | None, threads: int) -> None:
        import torch
        import transformers

        from bench.generating import generate

        self._run = generate
        self.name = f"transformers bf16, {threads} threads"
        self.threads = threads
        self._torch = torch
        if shape is None:
            model: Any = transformers.AutoModelForCausalLM.from_pretrained(
                folder, dtype=torch.bfloat16
            )
        else:
            config = transformers.Qwen2Config(**shape.as_json())
            model = transformers.AutoModelForCausalLM.from_config(config, dtype=torch.bfloat16)
        self._model = model.eval()

    def _generate(self, prompt: int, count: int) -> float:
        tokens = self._torch.arange(prompt)[None] % 1000
        began = time.perf_counter()
        self._run(self._model, tokens, count)
        return time.perf_counter() - began

    def run(self, prefill: int, count: int) -> tuple[float, float]:
        """Prefilled and decoded tokens per second."""
        self._torch.set_num_threads(self.threads)
        with self._torch.no_grad():
            return prefill / self._generate(prefill, 1), count / self._generate(1, count)


class LlamaBench:
    """llama.cpp's own benchmark, one repetition a round."""

    def __init__(self, command: str, path: str, weight_format: str, threads: int) -> None:
        self.weight_format, self.threads = weight_format, threads
        self.name = f"llama.cpp {weight_format}, {threads} threads"
        self._command = [*shlex.split(command), "-m", path, "-t", str(threads), "-o", "json"]

    def run(self, prefill: int, count: int) -> tuple[float, float]:
        """Prefilled and decoded tokens per second."""
        command = [*self._command, "-p", str(prefill), "-n", str(count), "-r", "1"]
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)
        results = json.loads(done.stdout)
        by_kind = {bool(r["n_gen"]): float(r["avg_ts"]) for r in results}
        return by_kind[False], by_kind[True]
