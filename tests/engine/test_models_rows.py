"""The bits of a row depend on its slot's tokens up to it, and on nothing else."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from atlasd.models.agreement import Sizes, agreeing_sizes
from atlasd.models.config import read_config
from atlasd.models.llama import LlamaDecoder
from atlasd.models.locate import find_model
from atlasd.models.weights import open_weights
from tests.engine.models_checkpoints import random_model, random_tokens, save

LENGTH, SLOTS, PROMPT = 260, 3, 128
FAMILIES = ["qwen2 tied", "llama 3", "qwen3", "mistral", "llama without groups"]


def ints(values: object) -> np.ndarray:
    return np.asarray(values, np.int32)


@pytest.fixture(scope="module", params=FAMILIES)
def served(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> tuple[LlamaDecoder, list[np.ndarray], list[np.ndarray]]:
    """A decoder, the tokens of its slots, and each row's logits from decoding it alone."""
    torch.set_num_threads(1)
    folder = save(random_model(request.param), tmp_path_factory.mktemp("model"))
    files = find_model(str(folder))
    config = read_config(files)
    decoder = LlamaDecoder(config, open_weights(files, config), slots=SLOTS, slot_tokens=448)
    decoder.find_sizes()
    tokens = [random_tokens(LENGTH, seed) for seed in range(SLOTS)]
    alone = []
    for slot in range(SLOTS):
        prefill(decoder, slot, tokens[slot])
        rows = [
            decoder.forward(tokens[slot][p : p + 1], ints([slot]), ints([p]), ints([0]))[0].copy()
            for p in range(PROMPT, LENGTH)
        ]
        alone.append(np.stack(rows))
    return decoder, tokens, alone


def prefill(decoder: LlamaDecoder, slot: int, tokens: np.ndarray, upto: int = PROMPT) -> None:
    rows = ints(range(upto))
    decoder.forward(tokens[:upto], ints([slot] * upto), rows, ints([]), prefill=True)


@settings(
    max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(data=st.data())
def test_a_decode_row_has_the_same_bits_in_any_company(
    served: tuple[LlamaDecoder, list[np.ndarray], list[np.ndarray]], data: st.DataObject
) -> None:
    decoder, tokens, alone = served
    runs = data.draw(
        st.lists(
            st.tuples(st.integers(1, 16), st.integers(PROMPT, LENGTH - 16)),
            min_size=1,
            max_size=SLOTS,
        )
    )
    order = data.draw(st.permutations(range(SLOTS)))
    slots, positions = [], []
    for slot, (count, first) in zip(order, runs, strict=False):
        slots += [slot] * count
        positions += range(first, first + count)
    given_tokens = ints([tokens[slot][at] for slot, at in zip(slots, positions, strict=True)])
    logits = decoder.forward(given_tokens, ints(slots), ints(positions), ints(range(len(slots))))
    for row, slot, at in zip(logits, slots, positions, strict=True):
        assert np.array_equal(row, alone[slot][at - PROMPT])


def test_a_prefilled_row_has_the_same_bits_however_the_prompt_was_cut(
    served: tuple[LlamaDecoder, list[np.ndarray], list[np.ndarray]],
) -> None:
    decoder, _, _ = served
    tokens = random_tokens(300, seed=9)
    rows = ints(range(300))
    slot = ints([0] * 300)
    whole = decoder.forward(tokens, slot, rows, rows, prefill=True).copy()
    for cuts in ([64], [128, 192], [256], [64, 128, 192, 256]):
        parts = []
        for part in np.split(np.arange(300), cuts):
            wanted = ints(range(len(part)))
            parts.append(
                decoder.forward(tokens[part], slot[part], rows[part], wanted, prefill=True).copy()
            )
        assert np.array_equal(np.concatenate(parts), whole)
    # A reused prefix: what followed it before does not matter.
    decoder.forward(
        random_tokens(44, seed=10), slot[:44], ints(range(256, 300)), ints([]), prefill=True
    )
    again = decoder.forward(tokens[256:], slot[256:], rows[256:], ints(range(44)), prefill=True)
    assert np.array_equal(again, whole[256:])


def test_rejected_drafts_leave_no_trace(
    served: tuple[LlamaDecoder, list[np.ndarray], list[np.ndarray]],
) -> None:
    decoder, tokens, alone = served
    wrong = random_tokens(15, seed=11)
    for at in range(PROMPT, PROMPT + 40, 7):
        prefill(decoder, 1, tokens[1])
        done = np.arange(PROMPT, at)
        if len(done):
            decoder.forward(tokens[1][done], ints([1] * len(done)), ints(done), ints([]))
        drafted = np.append(tokens[1][at : at + 1], wrong)
        span = ints(range(at, at + 16))
        first = decoder.forward(drafted, ints([1] * 16), span, ints([0]))[0].copy()
        second = decoder.forward(tokens[1][at + 1 : at + 2], ints([1]), ints([at + 1]), ints([0]))
        assert np.array_equal(first, alone[1][at - PROMPT])
        assert np.array_equal(second[0], alone[1][at + 1 - PROMPT])


def test_sizes_that_disagree_are_not_used() -> None:
    def run(sizes: Sizes, order: list[int], whole: bool) -> torch.Tensor:
        rows = torch.tensor(order, dtype=torch.float32)[:, None]
        return rows + (1 if sizes.passes[0] == 2 or sizes.units[0] == 16 else 0)

    sizes = agreeing_sizes(run)
    assert sizes.passes == (4, 8, 16)
    assert sizes.units == (1, 2, 4, 8)


def test_a_size_in_which_the_place_matters_is_not_used() -> None:
    def run(sizes: Sizes, order: list[int], whole: bool) -> torch.Tensor:
        rows = torch.tensor(order, dtype=torch.float32)
        if sizes.passes == (16,):
            rows[-1] += order[-1] != 15
        return rows[:, None]

    assert agreeing_sizes(run).passes == (2, 4, 8)


def test_rows_go_alone_where_their_place_always_matters() -> None:
    def run(sizes: Sizes, order: list[int], whole: bool) -> torch.Tensor:
        return torch.tensor(order, dtype=torch.float32)[:, None] + torch.arange(16)[:, None]

    assert agreeing_sizes(run) == Sizes((1,), (1,))


@pytest.mark.parametrize(
    ("rows", "bucket"), [(1, 2), (2, 2), (3, 4), (8, 8), (9, 16), (17, 18), (21, 24), (40, 40)]
)
def test_buckets_count_the_padding(rows: int, bucket: int) -> None:
    sizes = Sizes(passes=(2, 4, 8, 16))
    assert sizes.bucket(rows) == bucket
    assert sum(sizes.split(rows)) == rows


def test_a_large_tied_head_serves_without_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save(random_model("qwen2 tied"), tmp_path)
    files = find_model(str(folder))
    config = read_config(files)
    row = ints([0])

    def decoder() -> LlamaDecoder:
        made = LlamaDecoder(config, open_weights(files, config), slots=1, slot_tokens=128)
        made.find_sizes()
        return made

    expected = decoder().forward(ints([7]), row, row, row)
    monkeypatch.setattr("atlasd.models.torch_weights.COPIED_HEAD_BYTES", 0)
    lean = decoder()
    assert lean.weights.head is None
    np.testing.assert_allclose(lean.forward(ints([7]), row, row, row), expected, atol=1e-5)


@pytest.mark.parametrize(("slot", "position"), [(0, 448), (SLOTS, 0)])
def test_rows_outside_of_the_slots_are_errors(
    served: tuple[LlamaDecoder, list[np.ndarray], list[np.ndarray]], slot: int, position: int
) -> None:
    with pytest.raises(ValueError, match="outside"):
        served[0].forward(ints([0]), ints([slot]), ints([position]), ints([]))
