"""A row's bits depend on its slot's tokens up to its position, and on nothing else."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from atlasd_kernels.cpu import CpuDecoder
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.kernels.checkpoints import FAMILIES
from tests.kernels.conftest import FORMATS, ISAS

LENGTH = 90
VOCAB = 301
Make = Callable[..., CpuDecoder]


def rows(*values: int) -> np.ndarray:
    return np.array(values, np.int32)


def stepwise(decoder: CpuDecoder, tokens: np.ndarray, slot: int = 0) -> np.ndarray:
    """Logits [tokens, vocab], one row per call."""
    return np.stack(
        [
            decoder.forward(rows(t), rows(slot), rows(i), rows(0))[0].copy()
            for i, t in enumerate(tokens)
        ]
    )


@pytest.fixture(scope="module")
def sequences() -> np.ndarray:
    return np.random.default_rng(5).integers(0, VOCAB, (3, LENGTH)).astype(np.int32)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("weight_format", FORMATS)
def test_prefill_equals_decoding(
    weight_format: str, isa: str, make_decoder: Make, sequences: np.ndarray
) -> None:
    decoder = make_decoder("mistral", weight_format=weight_format, isa=isa)
    wanted = stepwise(decoder, sequences[0])
    every = np.arange(LENGTH, dtype=np.int32)
    found = decoder.forward(sequences[0], np.ones_like(every), every, every)
    assert np.array_equal(found, wanted)


@pytest.mark.parametrize("weight_format", ["int8", "int4"])
def test_integer_weights_give_the_same_bits_in_tiles_and_in_vectors(
    weight_format: str, make_decoder: Make, sequences: np.ndarray
) -> None:
    every = np.arange(LENGTH, dtype=np.int32)
    found = {
        isa: make_decoder("qwen2", weight_format=weight_format, isa=isa)
        .forward(sequences[0], 0 * every, every, every)
        .copy()
        for isa in ISAS
    }
    # in fp16 attention is another; portable has no fused multiply-add
    fp16 = {"amx", "avx512fp16"} & found.keys() if "avx512fp16" in found else set()
    for same in (fp16, found.keys() - fp16 - {"portable"}):
        for isa in same:
            assert np.array_equal(found[isa], found[min(same)]), isa


@pytest.mark.parametrize("count", [1, 2, 3, 4, 15, 16, 17, 31, 32, 33, 49])
@pytest.mark.parametrize("weight_format", FORMATS)
def test_a_row_has_the_same_bits_beside_any_number_of_others(
    weight_format: str, count: int, make_decoder: Make, sequences: np.ndarray
) -> None:
    decoder = make_decoder("qwen2", weight_format=weight_format)
    every = np.arange(LENGTH, dtype=np.int32)
    wanted = decoder.forward(sequences[1], 0 * every, every, every).copy()
    for begin in range(0, LENGTH, count):
        some = every[begin : begin + count]
        found = decoder.forward(sequences[1][some], 0 * some + 1, some, some - begin)
        assert np.array_equal(found, wanted[some])


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("isa", [ISAS[0], ISAS[-1]])
@pytest.mark.parametrize("weight_format", FORMATS)
def test_a_row_has_the_same_bits_with_any_number_of_threads(
    weight_format: str, isa: str, family: str, make_decoder: Make, sequences: np.ndarray
) -> None:
    """A few rows are prepared by each thread for itself, and finished by whoever had their last
    columns; more are shared out."""
    found: dict[int, list[np.ndarray]] = {}
    for threads in (1, 2, 3):
        decoder = make_decoder(family, weight_format=weight_format, isa=isa, threads=threads)
        begin = 0
        for count in (1, 2, 3, 4, 8, 16, 5, 51):
            some = np.arange(begin, begin + count, dtype=np.int32)
            rows = decoder.forward(sequences[0][some], 0 * some, some, some - begin)
            found.setdefault(threads, []).append(rows.copy())
            begin += count
    for threads in (2, 3):
        for rows, wanted in zip(found[threads], found[1], strict=True):
            assert np.array_equal(rows, wanted)


@pytest.mark.parametrize("threads", [1, 3])
@pytest.mark.parametrize("weight_format", FORMATS)
def test_bits_survive_any_schedule(
    weight_format: str, threads: int, make_decoder: Make, sequences: np.ndarray
) -> None:
    check_schedules(weight_format, threads, make_decoder, sequences, examples=4)


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("weight_format", FORMATS)
def test_bits_survive_500_schedules(
    weight_format: str, make_decoder: Make, sequences: np.ndarray
) -> None:
    check_schedules(weight_format, 2, make_decoder, sequences, examples=500)


def check_schedules(
    weight_format: str, threads: int, make_decoder: Make, sequences: np.ndarray, examples: int
) -> None:
    """Random numbers of rows, mixes of slots and drafts that are written over, against one row
    at a time on one thread."""
    single = make_decoder("qwen3", weight_format=weight_format, threads=1)
    wanted = [stepwise(single, s, i) for i, s in enumerate(sequences)]
    decoder = make_decoder("qwen3", weight_format=weight_format, threads=threads)

    @settings(
        max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck), database=None
    )
    @given(st.data())
    def run(data: st.DataObject) -> None:
        length = [0, 0, 0]
        while min(length) < LENGTH:
            order = data.draw(st.permutations(range(3)))
            batch: list[tuple[int, int, int]] = []
            for slot in order:
                n = data.draw(st.integers(0, 40))
                end = min(LENGTH, length[slot] + n)
                batch += [(int(sequences[slot][p]), slot, p) for p in range(length[slot], end)]
                length[slot] = end
            wrong = data.draw(st.integers(0, 3))
            last = order[-1]
            drafts = range(length[last], min(LENGTH, length[last] + wrong))
            # a wrong draft behind the rows, written over by the next call
            kept = len(batch)
            batch += [(7, last, p) for p in drafts]
            if not batch:
                continue
            tokens, slots, positions = (np.array(a, np.int32) for a in zip(*batch, strict=True))
            logits = decoder.forward(tokens, slots, positions, np.arange(kept, dtype=np.int32))
            for row in range(kept):
                assert np.array_equal(logits[row], wanted[slots[row]][positions[row]])

    run()


@pytest.mark.parametrize("family", FAMILIES)
def test_only_the_wanted_rows_come_back(family: str, make_decoder: Make) -> None:
    """The last layer is cut short for rows without logits; the order asked for is kept."""
    tokens = np.random.default_rng(6).integers(0, VOCAB, 300).astype(np.int32)
    every = np.arange(300, dtype=np.int32)
    decoder = make_decoder(family, weight_format="bf16")
    everything = decoder.forward(tokens, 0 * every, every, every).copy()
    some = rows(3, 299, 17, 17, 255, 256, 0)
    assert np.array_equal(decoder.forward(tokens, 0 * every + 1, every, some), everything[some])
    assert decoder.forward(tokens, 0 * every, every, rows()).shape == (0, VOCAB)


@pytest.mark.parametrize("weight_format", ["fp32", "bf16"])
@pytest.mark.parametrize("length", [1, 63, 64, 65, 89])
def test_a_copied_prefix_continues_with_the_same_bits(
    weight_format: str, length: int, make_decoder: Make, sequences: np.ndarray
) -> None:
    decoder = make_decoder("qwen2", weight_format=weight_format)
    wanted = stepwise(decoder, sequences[0], 0)
    stepwise(decoder, sequences[1], 2)  # something else was in the target before
    decoder.copy_prefix(0, 2, length)
    rest = np.arange(length, LENGTH, dtype=np.int32)
    found = decoder.forward(sequences[0][length:], 0 * rest + 2, rest, rest - length)
    assert np.array_equal(found, wanted[length:])
