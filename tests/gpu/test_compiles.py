"""Every kernel compiles for GPUs that are not there, and has the instructions it should have.

What can be proved without hardware: the same tensor-core instruction for every number of rows, no
atomics, no wgmma while decoding, and shared memory that an RTX 4090 has.
"""

from __future__ import annotations

import importlib.util
import os
import re

import pytest

pytestmark = [
    pytest.mark.slow,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        importlib.util.find_spec("triton") is None or os.environ.get("TRITON_INTERPRET") == "1",
        reason="triton does not compile here",
    ),
]

KINDS = ("bf16", "fp8", "int8", "int4", "nvfp4")
DECODING = "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32"
SHARED_4090 = 99 << 10


def compiled(launch, capability: int = 90):
    from bench.gpu_compiling import compile_for, instructions, recorded

    with recorded() as launches:
        launch()
    found = [compile_for(each, capability) for each in launches]
    for each in found:
        counts = instructions(each)
        assert not [name for name in counts if name.startswith(("atom", "red"))]
        assert each.metadata.shared <= SHARED_4090
    return [(each, instructions(each)) for each in found]


@pytest.mark.parametrize("kind", KINDS)
def test_one_instruction_serves_every_number_of_rows(kind: str) -> None:
    from tests.gpu import variants

    counts = {}
    for rows in (1, 20, 64):
        ((_, found),) = compiled(lambda rows=rows: variants.launch_matmul(kind, rows))
        assert {name for name in found if "mma" in name} == {DECODING}
        counts[rows] = found[DECODING]
    assert counts[20] == 2 * counts[1]
    assert counts[64] == 4 * counts[1]


@pytest.mark.parametrize(
    ("kind", "most"), [("bf16", 2.6), ("fp8", 5.2), ("int8", 4.5), ("int4", 4.2), ("nvfp4", 5.2)]
)
def test_a_weight_takes_few_instructions_and_comes_by_itself(kind: str, most: float) -> None:
    """While an H100's memory brings a byte, its lanes can be given nine instructions: five for a
    weight of NVFP4."""
    from bench.gpu_compiling import compile_for, machine_code, recorded
    from tests.gpu import variants

    for rows in (1, 16):
        with recorded() as launches:
            variants.launch_matmul(kind, rows)
        launched = launches[0]
        each = compile_for(launched)
        code = machine_code(each)
        assert code.spilled == 0
        counts = code.counts
        # Sixteen bytes a lane, past the registers; nothing wider than a group's scale waits.
        assert counts["LDGSTS.E.BYPASS.128"] > 0
        assert not [name for name in counts if name.startswith("LDG.E.") and "U16" not in name]
        named = launched.arguments
        weights = named["BLOCK_N"] * named["BLOCK_K"] / (32 * launched.options["num_warps"])
        assert len(code.loop) / weights <= most


def test_every_number_of_tiles_sums_a_row_in_the_same_lanes() -> None:
    """Warps that shared a row otherwise would add its parts in another order."""
    from bench.gpu_compiling import compile_for, recorded
    from tests.gpu import variants

    def layouts(launch) -> set[str]:
        with recorded() as launches:
            launch()
        text = compile_for(launches[0]).asm["ttgir"]
        return set(re.findall(r"#ttg.nvidia_mma<\{[^>]*\}>", text))

    for one, four in (
        (lambda: variants.launch_matmul("bf16", 1), lambda: variants.launch_matmul("bf16", 64)),
        (
            lambda: variants.launch_attention(1, 1, None, False),
            lambda: variants.launch_attention(8, 4, None, False),
        ),
    ):
        assert layouts(one) == layouts(four) != set()


@pytest.mark.parametrize("capability", [80, 86, 89, 100, 120])
def test_other_cards_compile_every_format(capability: int) -> None:
    """Ampere and Ada convert no FP8 in hardware; the kernels need no such conversion."""
    from tests.gpu import variants

    for kind in ("fp8", "nvfp4"):
        ((_, found),) = compiled(lambda kind=kind: variants.launch_matmul(kind, 8), capability)
        assert {name for name in found if "mma" in name} == {DECODING}


@pytest.mark.parametrize("kind", KINDS)
def test_prefill_compiles_for_hopper_and_ada(kind: str) -> None:
    from tests.gpu import variants

    for capability in (90, 89):
        compiled(lambda: variants.launch_matmul(kind, 512, prefill=True), capability)
    compiled(lambda: variants.launch_gate_up(kind, 16))


@pytest.mark.parametrize(("window", "whole"), [(None, False), (300, False), (None, True)])
def test_attention_compiles_for_every_number_of_tiles(window, whole) -> None:
    from tests.gpu import variants

    counts = []
    for tiles in (1, 2, 4):
        found = compiled(lambda tiles=tiles: variants.launch_attention(8, tiles, window, whole))
        assert {name for name in found[0][1] if "mma" in name} == {DECODING}
        counts.append(found[0][1][DECODING])
    assert counts[1:] == [2 * counts[0], 4 * counts[0]]


def test_the_kernels_of_single_rows_compile() -> None:
    from tests.gpu import variants

    assert len(compiled(variants.launch_row_kernels)) == 7
