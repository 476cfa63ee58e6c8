"""A lookahead in one call against the same, step by step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from atlasd_kernels.cpu import CpuDecoder, choose, draft_chain, top_k
from atlasd_kernels.cpu.correction import last_states

from tests.kernels.conftest import FORMATS, ISAS, checkpoint
from tests.kernels.head import head_rows
from tests.kernels.rounding import rounded

HEAD = np.array([3, 4, 9, 30, 77, 150, 151, 200, 299, 300], np.int32)


@pytest.mark.parametrize("reduced", [False, True])
@pytest.mark.parametrize("temperature", [0.0, 0.9])
@pytest.mark.parametrize("weight_format", FORMATS)
def test_a_chain_equals_single_steps(
    weight_format: str, temperature: float, reduced: bool, make_decoder: Callable[..., CpuDecoder]
) -> None:
    if reduced and weight_format == "int4":
        pytest.skip("such a head has four bits, the full one eight: see the next test")
    decoder = make_decoder("llama", weight_format=weight_format)
    head = HEAD if reduced else None
    chain = draft_chain(
        decoder, [5], 0, 0, 12, temperature=temperature, seed=9, output_index=4, head_tokens=head
    )
    token = 5
    for i in range(12):
        row = np.array([i], np.int32)
        logits = decoder.forward(np.array([token], np.int32), row * 0 + 1, row, row * 0).copy()
        if reduced:
            outside = np.setdiff1d(np.arange(logits.shape[1]), HEAD)
            logits[:, outside] = -np.inf
        token = int(choose(logits, temperature=temperature, seed=9, output_index=4 + i)[0])
        assert chain.tokens[i] == token
        wanted = np.exp(logits[0, token] - top_k(logits, 1)[2][0])
        assert chain.probabilities[i] == pytest.approx(wanted, rel=1e-4)


def test_a_reduced_head_has_the_layers_format(make_decoder: Callable[..., CpuDecoder]) -> None:
    decoder = make_decoder("llama", weight_format="int4")
    hidden = decoder.spec.hidden_size
    rows = np.zeros((32, 128), np.float32)  # whole panels and groups
    rows[: len(HEAD), :hidden] = checkpoint("llama")[1]["lm_head.weight"][HEAD]
    head = rounded(rounded(rows, "int8"), "int4")[: len(HEAD), :hidden]
    chain = draft_chain(decoder, [5], 0, 0, 12, head_tokens=HEAD)
    token = 5
    for i, drafted in enumerate(chain.tokens.tolist()):
        logits = head @ last_states(decoder, np.array([token], np.int32), 1, i)[0]
        shares = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
        share = shares[HEAD.tolist().index(drafted)]
        assert share > 0.97 * shares.max()
        assert chain.probabilities[i] == pytest.approx(share, rel=0.03)
        token = drafted


@pytest.mark.parametrize("isa", ISAS)
def test_a_reduced_heads_noise_is_that_of_its_tokens(
    isa: str, make_decoder: Callable[..., CpuDecoder]
) -> None:
    """In any order of ids, whole vectors of them and a rest."""
    decoder = make_decoder("llama", weight_format="fp32", isa=isa)
    ids = np.random.default_rng(8).permutation(301)[:53].astype(np.int32)
    noise: dict[str, Any] = {"temperature": 1.5, "seed": 3, "choice": 2}
    chain = draft_chain(decoder, [5], 0, 0, 24, output_index=6, head_tokens=ids, **noise)
    assert len(set(chain.tokens.tolist())) > 8
    token = 5
    for i, drafted in enumerate(chain.tokens.tolist()):
        row = np.array([i], np.int32)
        logits = decoder.forward(np.array([token], np.int32), row * 0 + 1, row, row * 0)
        only = np.full_like(logits, -np.inf)
        only[:, ids] = logits[:, ids]
        assert drafted == int(choose(only, output_index=6 + i, **noise)[0])
        token = drafted


def test_a_chain_stops_where_its_reach_falls_below_the_threshold(
    make_decoder: Callable[..., CpuDecoder],
) -> None:
    decoder = make_decoder("llama")
    full = draft_chain(decoder, [5], 0, 0, 30)
    reach = np.cumprod(full.probabilities)
    threshold = float(np.sqrt(reach[6] * reach[7]))
    stopped = draft_chain(decoder, [5], 0, 0, 30, stop_probability=threshold)
    assert stopped.tokens.tolist() == full.tokens[:7].tolist()


def test_a_chain_ends_with_its_slot(make_decoder: Callable[..., CpuDecoder]) -> None:
    decoder = make_decoder("llama", slot_tokens=40)
    assert len(draft_chain(decoder, [5], 0, 35, 30).tokens) == 5


def test_a_slot_is_intact_behind_a_chain(make_decoder: Callable[..., CpuDecoder]) -> None:
    """Rows that drafting wrote are as good as any: they are the drafter's own decoding."""
    decoder = make_decoder("qwen2")
    chain = draft_chain(decoder, [5], 0, 0, 8)
    tokens = np.concatenate([[5], chain.tokens]).astype(np.int32)
    last = np.array([8], np.int32)
    after = decoder.forward(tokens[-1:], last * 0, last, last * 0).copy()
    rows = np.arange(9, dtype=np.int32)
    assert np.array_equal(after, decoder.forward(tokens, rows * 0 + 1, rows, last))


@pytest.mark.parametrize("weight_format", FORMATS)
def test_a_chain_carries_the_states_that_chose_its_tokens(
    weight_format: str, make_decoder: Callable[..., CpuDecoder]
) -> None:
    """Against the same, step by step: ``last_states`` with the state that chose each token."""
    decoder = make_decoder("qwen2", weight_format=weight_format)
    hidden = decoder.spec.hidden_size
    draw = np.random.default_rng(2)
    rows = head_rows(decoder)
    decoder.set_carry(draw.standard_normal((hidden, hidden)).astype(np.float32) * 0.05)
    state = draw.standard_normal((1, hidden)).astype(np.float32)
    prompt = [5, 9, 2]
    plain = draft_chain(decoder, prompt, 0, 0, 8)
    chain = draft_chain(decoder, prompt, 0, 0, 8, chose=state)
    assert chain.probabilities.tobytes() != plain.probabilities.tobytes()
    last_states(decoder, np.array(prompt[:-1], np.int32), 1, 0)
    token = prompt[-1]
    for i, drafted in enumerate(chain.tokens.tolist()):
        state = last_states(decoder, np.array([token], np.int32), 1, 2 + i, state)
        if weight_format == "fp32":
            assert int((state @ rows.T).argmax()) == drafted
        token = drafted
    rest = draft_chain(decoder, [token], 1, 2 + len(chain.tokens), 1, chose=state)
    longer = draft_chain(decoder, prompt, 0, 0, 9, chose=draw_again(hidden))
    assert rest.tokens[0] == longer.tokens[8]


def draw_again(hidden: int) -> np.ndarray:
    """The state that the chain of the test before began with."""
    draw = np.random.default_rng(2)
    draw.standard_normal((hidden, hidden))
    return draw.standard_normal((1, hidden)).astype(np.float32)


def test_what_is_carried_is_added_before_the_final_norm(
    make_decoder: Callable[..., CpuDecoder],
) -> None:
    """A map of zero changes nothing; the identity adds the state itself, as numpy says."""
    decoder = make_decoder("llama", weight_format="fp32")
    hidden = decoder.spec.hidden_size
    tokens = np.array([5, 9, 2], np.int32)
    plain = last_states(decoder, tokens, 0, 0)
    chose = np.random.default_rng(3).standard_normal((3, hidden)).astype(np.float32)
    decoder.set_carry(np.zeros((hidden, hidden), np.float32))
    assert last_states(decoder, tokens, 0, 0, chose).tobytes() == plain.tobytes()
    decoder.set_carry(np.eye(hidden, dtype=np.float32) * 1e4)
    carried = last_states(decoder, tokens, 0, 0, chose)
    # So much is added that the layers' share vanishes: what is left is the norm of the state.
    scale = np.sqrt((chose.astype(np.float64) ** 2).mean(1, keepdims=True))
    weight = np.median(carried / (chose / scale), axis=0)
    assert np.allclose(carried, weight * chose / scale, atol=0.02)


def test_kept_states_are_those_of_the_rows_wanted(make_decoder: Callable[..., CpuDecoder]) -> None:
    decoder = make_decoder("qwen2")
    tokens = np.random.default_rng(0).integers(0, decoder.vocab_size, 40).astype(np.int32)
    rows = np.arange(40, dtype=np.int32)
    wanted = np.array([3, 17, 39], np.int32)
    alone = decoder.forward(tokens, rows * 0, rows, wanted).copy()
    assert decoder.states is None
    decoder.keep_states()
    kept = decoder.forward(tokens, rows * 0, rows, wanted)
    assert kept.tobytes() == alone.tobytes()
    assert decoder.states is not None
    assert decoder.states.tobytes() == last_states(decoder, tokens, 0, 0)[wanted].tobytes()
    backwards = wanted[::-1].copy()
    decoder.forward(tokens, rows * 0, rows, backwards)
    assert decoder.states.tobytes() == last_states(decoder, tokens, 0, 0)[backwards].tobytes()


def test_states_that_do_not_fit_are_refused(make_decoder: Callable[..., CpuDecoder]) -> None:
    decoder = make_decoder("llama")
    hidden = decoder.spec.hidden_size
    state = np.zeros((1, hidden), np.float32)
    with pytest.raises(ValueError, match="do not fit"):
        draft_chain(decoder, [5], 0, 0, 4, chose=state)  # it carries none
    with pytest.raises(ValueError, match="mapped"):
        decoder.set_carry(np.zeros((hidden, 3), np.float32))
    decoder.set_carry(np.zeros((hidden, hidden), np.float32))
    with pytest.raises(ValueError, match="do not fit"):
        draft_chain(decoder, [5], 0, 0, 4, chose=state[:, 1:])
