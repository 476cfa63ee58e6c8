"""Choosing tokens in one native call where the CPU kernels load, in numpy elsewhere."""

from __future__ import annotations

from atlasd_kernels import cpu

from atlasd.engine.sampling import ChooseRow, Float32, choose_row


def fastest_choose() -> ChooseRow:
    """The fastest way to choose a sampled token on this machine. The two ways differ by the
    rounding of two logarithms, so one of them is used for everything."""
    loads, _ = cpu.available()
    return choose_natively if loads else choose_row


def choose_natively(logits: Float32, temperature: float, seed: int, choice: int, index: int) -> int:
    """As ``sampling.choose_row``."""
    return int(
        cpu.choose(
            logits[None],
            temperature=temperature,
            seed=seed,
            choice=choice,
            output_index=index,
        )[0]
    )
