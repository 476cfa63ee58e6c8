"""What the GPU's weight formats cost in quality: bits per byte and top-1 agreement, on any CPU.

    python -m bench.gpu_quality [--model bundled|FOLDER] [--files 40] [--tokens 512] [--json FILE]

The formats are those of the GPU kernels, value for value: weights are quantised and turned back,
and the model runs in float32 torch. The text is Python of the standard library, which is on every
machine; the model has not been made to know it. The head is kept as the kernels keep it (eight
bits in four-bit models); the embedding is bf16.
"""

from __future__ import annotations

import argparse
import json
import sysconfig
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from atlasd_kernels.gpu.formats import BITS, FORMATS, Format, dequantise, quantise

from atlasd.models.config import ModelConfig, read_config
from atlasd.models.llama import LlamaDecoder
from atlasd.models.locate import find_model
from atlasd.models.quant import HEAD_FORMATS
from atlasd.models.tokenizer import Tokenizer
from atlasd.models.weights import float32, open_weights
from bench.report import table

Array = npt.NDArray[Any]
EMBEDDING = "model.embed_tokens.weight"


class Rounded(Mapping[str, Array]):
    """A checkpoint as a format leaves it. A tied head is handed out as one of its own."""

    def __init__(self, weights: Mapping[str, Array], config: ModelConfig, kind: Format) -> None:
        self._weights, self._config, self._kind = weights, config, kind

    def __getitem__(self, name: str) -> Array:
        source = EMBEDDING if name == "lm_head.weight" and self._config.tied else name
        values = torch.from_numpy(np.ascontiguousarray(float32(self._weights[source])))
        if values.dim() < 2:
            return values.numpy()
        if name == EMBEDDING:
            return values.bfloat16().float().numpy() if self._kind != "fp32" else values.numpy()
        kind = HEAD_FORMATS.get(self._kind, self._kind) if "head" in name else self._kind
        return dequantise(quantise(values, kind)).contiguous().numpy()

    def __iter__(self) -> Iterator[str]:
        return iter(self._weights)

    def __len__(self) -> int:
        return len(self._weights)


@dataclass(frozen=True)
class Quality:
    """Of one format on one text."""

    bits_per_byte: float
    choices: Array
    """The model's first choice after every token."""


def texts(tokenizer: Tokenizer, files: int, tokens: int) -> list[tuple[list[int], int]]:
    """Beginnings of standard library modules: token ids, and the bytes of all but the first."""
    library = Path(sysconfig.get_paths()["stdlib"])
    made = []
    for path in sorted(library.glob("*.py")):
        if path.stat().st_size > 4 * tokens:
            ids = tokenizer.encode(path.read_text("utf-8", "replace"))[:tokens]
            made.append((ids, sum(len(tokenizer.token_bytes(token)) for token in ids[1:])))
    return made[:: max(1, len(made) // files)][:files]


def measure(decoder: LlamaDecoder, read: list[tuple[list[int], int]]) -> Quality:
    """Teacher-forced over every text."""
    bits, size, choices = 0.0, 0, []
    for ids, length in read:
        rows = np.arange(len(ids), dtype=np.int32)
        logits = decoder.forward(np.array(ids, np.int32), rows * 0, rows, rows, prefill=True)
        scores = torch.from_numpy(logits).log_softmax(1)
        following = torch.tensor(ids[1:])
        bits -= float(scores[:-1].gather(1, following[:, None]).sum()) / float(np.log(2.0))
        size += length
        choices.append(logits.argmax(axis=1))
    return Quality(bits / size, np.concatenate(choices))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", default="bundled")
    parser.add_argument("--files", type=int, default=40)
    parser.add_argument("--tokens", type=int, default=512)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    torch.set_num_threads(1)
    files = find_model(options.model)
    config, tokenizer = read_config(files), Tokenizer.load(files)
    weights = open_weights(files, config)
    read = texts(tokenizer, options.files, options.tokens)
    untied = ModelConfig(**{**vars(config), "tied": False})
    found: dict[Format, Quality] = {}
    for kind in FORMATS:
        rounded = Rounded(weights, config, kind)
        decoder = LlamaDecoder(untied, rounded, slots=1, slot_tokens=options.tokens)
        found[kind] = measure(decoder, read)
        decoder.close()
    own = found["fp32" if config.dtype == "float32" else "bf16"]
    lines = []
    for kind, quality in found.items():
        agreement = float((quality.choices == own.choices).mean())
        more = quality.bits_per_byte / own.bits_per_byte - 1
        cells = [kind, f"{BITS[kind]:g}", f"{quality.bits_per_byte:.4f}", f"{more:+.2%}"]
        lines.append([*cells, f"{agreement:.2%}"])
    header = ["weights", "bits a weight", "bits per byte", "more", "top-1 agreement"]
    count = sum(len(ids) for ids, _ in read)
    print(table(f"GPU formats, {files.name}, {count} tokens of Python", header, lines))
    if options.json:
        options.json.write_text(json.dumps({line[0]: line[1:] for line in lines}, indent=1))


if __name__ == "__main__":
    main()
