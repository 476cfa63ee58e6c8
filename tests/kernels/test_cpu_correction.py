"""Drafting with an adapter's correction, against the uncorrected drafter and against numpy."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from atlasd_kernels.cpu import CpuDecoder, choose, draft_chain
from atlasd_kernels.cpu.correction import Correction, LowRank, last_states

from tests.kernels.conftest import FORMATS
from tests.kernels.head import head_rows

HEAD = np.array([3, 4, 9, 30, 77, 150, 151, 200, 299, 300], np.int32)
RANK, CODES = 8, 64


def weights(decoder: CpuDecoder, scale: float) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(1)
    hidden = decoder.spec.hidden_size
    shapes = {
        "down": (hidden, RANK),
        "up": (RANK, hidden),
        "last": (CODES, RANK),
        "before": (CODES, RANK),
        "bias": (len(HEAD),),
    }
    made = {k: draw.standard_normal(s).astype(np.float32) * scale for k, s in shapes.items()}
    made["down"] = made["down"] / max(scale, 1e-9) / np.float32(np.sqrt(hidden))
    return made


@pytest.mark.parametrize("temperature", [0.0, 0.9])
@pytest.mark.parametrize("weight_format", FORMATS)
def test_a_correction_of_zero_changes_nothing(
    weight_format: str, temperature: float, make_decoder: Callable[..., CpuDecoder]
) -> None:
    decoder = make_decoder("llama", weight_format=weight_format)
    plain = draft_chain(
        decoder, [5], 0, 0, 12, temperature=temperature, seed=9, output_index=4, head_tokens=HEAD
    )
    correction = Correction(decoder, LowRank(HEAD, **weights(decoder, 0.0)))
    corrected = draft_chain(
        decoder,
        [5],
        1,
        0,
        12,
        correction=correction,
        before=2,
        temperature=temperature,
        seed=9,
        output_index=4,
    )
    assert corrected.tokens.tolist() == plain.tokens.tolist()
    assert corrected.probabilities.tobytes() == plain.probabilities.tobytes()


@pytest.mark.parametrize("temperature", [0.0, 0.9])
def test_a_corrected_chain_is_what_numpy_says(
    temperature: float, make_decoder: Callable[..., CpuDecoder]
) -> None:
    decoder = make_decoder("llama", weight_format="fp32")
    made = weights(decoder, 0.3)
    correction = Correction(decoder, LowRank(HEAD, **made))
    drafted = draft_chain(
        decoder,
        [5],
        0,
        0,
        8,
        correction=correction,
        before=2,
        temperature=temperature,
        seed=9,
        output_index=4,
    )
    embedding = head_rows(decoder)[HEAD]
    last, before = 5, 2
    for i, token in enumerate(drafted.tokens.tolist()):
        state = last_states(decoder, np.array([last], np.int32), 1, i)[0]
        position = np.array([i], np.int32)
        one = np.array([last], np.int32)
        plain = decoder.forward(one, position * 0 + 1, position, position * 0)[0].copy()
        z = state @ made["down"] + made["last"][last % CODES] + made["before"][before % CODES]
        assert np.allclose(state @ embedding.T, plain[HEAD], rtol=1e-4, atol=1e-4)
        row = np.full((1, decoder.vocab_size), -np.inf, np.float32)
        row[0, HEAD] = (state + z @ made["up"]) @ embedding.T + made["bias"]
        assert token == choose(row, temperature=temperature, seed=9, output_index=4 + i)[0]
        total = np.exp(row[0, HEAD] - row[0, HEAD].max()).sum()
        wanted = np.exp(row[0, token] - row[0, HEAD].max()) / total
        assert drafted.probabilities[i] == pytest.approx(wanted, rel=1e-3)
        last, before = token, last


def test_states_do_not_depend_on_how_many_rows_there_are(
    make_decoder: Callable[..., CpuDecoder],
) -> None:
    decoder = make_decoder("qwen2", slot_tokens=320)
    tokens = np.random.default_rng(0).integers(0, decoder.vocab_size, 300).astype(np.int32)
    together = last_states(decoder, tokens, 0, 0)
    parts = [last_states(decoder, tokens[at : at + 7], 1, at) for at in range(0, 300, 7)]
    assert np.concatenate(parts).tobytes() == together.tobytes()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"bias": np.zeros(3, np.float32)}, "fit"),
        ({"down": np.zeros((5, RANK), np.float32)}, "hidden"),
    ],
)
def test_weights_that_do_not_fit_are_refused(
    change: dict[str, np.ndarray], message: str, make_decoder: Callable[..., CpuDecoder]
) -> None:
    decoder = make_decoder("llama")
    with pytest.raises(ValueError, match=message):
        Correction(decoder, LowRank(HEAD, **(weights(decoder, 0.1) | change)))
    with pytest.raises(ValueError, match="out of range"):
        Correction(decoder, LowRank(HEAD + 100_000, **weights(decoder, 0.1)))
