"""Runs every function of the native decoder under the sanitizers: started by test_sanitized.py, or
by hand

    LD_PRELOAD=$(g++ -print-file-name=libasan.so) ATLASD_NATIVE_LIBRARY=... python sanitized.py

Imports neither torch nor pytest, whose own memory would be watched as well.
"""

from __future__ import annotations

import numpy as np
from atlasd_kernels.cpu import CpuDecoder, choose, draft_chain, instruction_sets, top_k
from atlasd_kernels.cpu.correction import Correction, LowRank, last_states
from atlasd_kernels.spec import DecoderSpec
from raw_weights import random_tensors  # beside it: this is no part of a package when it runs

from atlasd.draft.registry import Drafting
from atlasd.engine.costs import StepCosts
from atlasd.engine.inprocess import Outputs, request, run
from atlasd.engine.native import fastest_choose
from atlasd.engine.planning import Planning
from atlasd.engine.protocol import Sampling
from atlasd.engine.steps import Engine

SPEC = DecoderSpec(
    vocab_size=77,
    hidden_size=80,
    layers=2,
    heads=6,
    kv_heads=2,
    head_dim=48,
    intermediate_size=100,
    rms_eps=1e-6,
    inv_freq=np.linspace(1, 0.01, 24, dtype=np.float32),
    qkv_bias=True,
    qk_norm=True,
    sliding_window=(None, 70),
)


def exercise(weight_format: str, isa: str, threads: int) -> None:
    decoder = CpuDecoder(
        SPEC,
        random_tensors(SPEC),
        weight_format=weight_format,  # type: ignore[arg-type]
        slots=2,
        slot_tokens=130,
        threads=threads,
        isa=isa,
    )
    rows = np.arange(130, dtype=np.int32)
    for count in (1, 2, 3, 5, 9, 13, 97, 130):
        some = rows[:count]
        logits = decoder.forward(some % 77, some * 0 + 1, some, some[-2:])
    decoder.copy_prefix(1, 0, 130)
    draft_chain(decoder, [3], 0, 100, 40, temperature=0.8, head_tokens=rows[:7] * 11)
    draft_chain(decoder, [3], 0, 100, 8)
    learned(decoder, rows[:11] * 7)
    choose(logits, temperature=0.7, seed=1, output_index=3)
    top_k(logits, 5)
    several_steps(decoder)
    decoder.close()


def learned(decoder: CpuDecoder, head: np.ndarray) -> None:
    """What adapters and drafters that carry states need of a decoder."""
    draw, hidden, rank, codes = np.random.default_rng(1), SPEC.hidden_size, 8, 64

    def some(*shape: int) -> np.ndarray:
        return draw.normal(size=shape).astype(np.float32) * np.float32(0.1)

    shapes = [(hidden, rank), (rank, hidden), (codes, rank), (codes, rank), (len(head),)]
    correction = Correction(decoder, LowRank(head, *(some(*shape) for shape in shapes)))
    draft_chain(decoder, [3], 0, 100, 8, correction=correction, before=5)
    decoder.set_carry(some(hidden, hidden))
    decoder.keep_states()
    row = np.arange(9, dtype=np.int32)
    decoder.forward(row, row * 0, row, row[::2])
    last_states(decoder, row, 1, 0, chose=some(9, hidden))
    draft_chain(decoder, row, 0, 50, 6, chose=decoder.states[-1:], temperature=0.8)


def several_steps(decoder: CpuDecoder) -> None:
    """Steps in one call, with and without drafts, of outputs that know each other, and of two."""
    drafting = Drafting(vocab_size=SPEC.vocab_size, fingerprint="f", costs=StepCosts(lambda n: n))
    outputs = Outputs()
    planning = Planning(drafting.controller)
    engine = Engine(decoder, outputs.take, planning=planning, choose=fastest_choose())
    for number in range(8):
        sampling = Sampling(temperature=0.5 * (number % 3), seed=number)
        engine.submit(request(number, range(9), max_tokens=122, sampling=sampling))
        if number != 2:  # the third and the fourth together
            run(engine)
    accepted = sum(sum(output.stats.accepted.values()) for output in outputs.values())
    assert accepted > 50, accepted


if __name__ == "__main__":
    for each in instruction_sets():
        for weight_format in ("fp32", "bf16", "int8", "int4"):
            exercise(weight_format, each, threads=1)
    for weight_format in ("bf16", "int8"):
        exercise(weight_format, instruction_sets()[0], threads=3)
    print("no complaint")
