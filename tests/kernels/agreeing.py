"""All instruction sets of this processor agree, without torch or pytest: for processors that are
here only under an emulator (CONTRIBUTING.md), or by hand

    python -m tests.kernels.agreeing

Bit for bit, but for the portable one on x86, where it does not fuse multiply-adds and is near.
AVX-512 with FP16 and AMX have sums of their own, in bf16 AVX-VNNI as well; those are tested
elsewhere.
"""

from __future__ import annotations

import dataclasses
import platform
import sys

import numpy as np
from atlasd_kernels.cpu import CpuDecoder, instruction_sets, top_k

from tests.kernels.raw_weights import SPEC, bits, random_tensors

OWN_SUMS = {"amx", "avx512fp16"}
COUNTS = (1, 2, 3, 4, 5, 6, 7, 9, 16, 17, 40)
ODD = dataclasses.replace(
    SPEC,
    vocab_size=77,
    hidden_size=80,
    heads=6,
    head_dim=48,
    intermediate_size=100,
    inv_freq=np.linspace(1, 0.01, 24, dtype=np.float32),
    tied=False,
    qk_norm=True,
    sliding_window=(None, 70),
)


def logits(decoder: CpuDecoder) -> np.ndarray:
    """Of a prefill, then of decoding so many rows together."""
    vocab, found, length = decoder.vocab_size, [], 0
    for count in COUNTS:
        rows = np.arange(length, length + count, dtype=np.int32)
        found.append(decoder.forward(rows % vocab, rows * 0, rows, rows - length).copy())
        length += count
    return np.concatenate(found)


def agree(found: np.ndarray, wanted: np.ndarray, isa: str) -> bool:
    if isa == "portable" and platform.machine() in ("x86_64", "AMD64"):
        return bool(np.abs(found - wanted).max() < 0.02 * np.abs(wanted).max())
    return np.array_equal(found.view(np.uint32), wanted.view(np.uint32))


def main() -> None:
    sets = instruction_sets()
    print(*sets)
    right = True
    for spec in (SPEC, ODD):
        weights = {name: bits(values) for name, values in random_tensors(spec).items()}
        for weight_format in ("fp32", "bf16", "int8", "int4"):
            own = OWN_SUMS | ({"avxvnni"} if weight_format == "bf16" else set())
            known: np.ndarray | None = None
            for isa in (name for name in sets if name not in own):
                decoder = CpuDecoder(
                    spec, weights, weight_format=weight_format, slot_tokens=192, threads=2, isa=isa
                )
                found = logits(decoder)
                decoder.close()
                known = found if known is None else known
                good = agree(found, known, isa)
                good &= np.array_equal(top_k(found, 5)[0][:, 0], found.argmax(axis=1))
                right &= good
                said = "as the best" if good else "NOT as the best"
                print(f"{spec.hidden_size} {weight_format} {isa}: {said}")
    sys.exit(not right)


if __name__ == "__main__":
    main()
