"""The decoder under the interpreter: logits of transformers, identity, the device's choices."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from atlasd_kernels.gpu.formats import dequantise

from atlasd.engine.sampling import choose_row, top_choices
from atlasd.models.config import read_config
from atlasd.models.cuda_decoder import CudaDecoder
from atlasd.models.decoder import RowNoise, Wanted
from atlasd.models.locate import find_model
from atlasd.models.memory import SlotPlan
from atlasd.models.quant import quantise_model
from atlasd.models.weights import open_weights
from tests.engine.models_checkpoints import random_model, random_tokens, save
from tests.gpu.values import drafting_changes_nothing

FAMILIES = ("llama 3", "qwen2 sliding", "qwen3 tied", "mistral")
SMALL = {"num_hidden_layers": 2}


def ints(values: object) -> np.ndarray:
    return np.array(values, np.int32)


def decoder_of(folder: Path, kind: str = "fp32", **options: object) -> CudaDecoder:
    files = find_model(str(folder))
    config = read_config(files)
    weights = open_weights(files, config)
    model = quantise_model(weights, config, kind, torch.device("cpu"))  # type: ignore[arg-type]
    return CudaDecoder(config, model, SlotPlan(3, 192), prefill_rows=16, **options)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(random_model("qwen2", **SMALL), tmp_path_factory.mktemp("tiny"))


@pytest.fixture
def decoder(tiny: Path) -> Iterator[CudaDecoder]:
    made = decoder_of(tiny)
    yield made
    made.close()


@pytest.mark.parametrize("family", FAMILIES)
def test_logits_are_those_of_transformers(family: str, tmp_path: Path) -> None:
    windows = {"mistral": {"sliding_window": 7}, "qwen2 sliding": {"sliding_window": 5}}
    model = random_model(family, **SMALL, **windows.get(family, {}))
    decoder = decoder_of(save(model, tmp_path))
    tokens = random_tokens(22)
    with torch.no_grad():
        expected = model(torch.from_numpy(tokens)[None].long()).logits[0].numpy()
    rows = np.arange(19, dtype=np.int32)
    # Prefill over the border of a pass, in a slot that is not the first; then a draft of three.
    first = decoder.forward(tokens[:19], rows * 0 + 1, rows, ints([3, 18]), prefill=True)
    np.testing.assert_allclose(first, expected[[3, 18]], atol=2e-4, rtol=1e-3)
    rows = np.arange(19, 22, dtype=np.int32)
    second = decoder.forward(tokens[19:], rows * 0 + 1, rows, ints([0, 2]))
    np.testing.assert_allclose(second, expected[[19, 21]], atol=2e-4, rtol=1e-3)
    assert set(decoder.memory_bytes()) == {"weights", "slots", "scratch", "graphs"}
    decoder.close()


@pytest.mark.parametrize("kind", ["nvfp4"])
def test_a_quantised_model_is_that_of_its_dequantised_weights(kind: str, tmp_path: Path) -> None:
    model = random_model("qwen2", **SMALL)
    decoder = decoder_of(save(model, tmp_path), kind)
    names = {"output": "self_attn.o_proj", "down": "mlp.down_proj"}
    with torch.no_grad():
        for number, layer in enumerate(model.model.layers):
            packed = decoder.model.layers[number]
            for name, where in names.items():
                layer.get_submodule(where).weight.copy_(dequantise(getattr(packed, name)))
            q, k, v = dequantise(packed.qkv).split([96, 32, 32])
            gate, up = dequantise(packed.gate_up).unflatten(0, (-1, 2)).unbind(1)
            parts = {"self_attn.q_proj": q, "self_attn.k_proj": k, "self_attn.v_proj": v}
            parts |= {"mlp.gate_proj": gate, "mlp.up_proj": up}
            for where, value in parts.items():
                layer.get_submodule(where).weight.copy_(value)
        model.lm_head.weight.copy_(dequantise(decoder.model.head))
        embedding = model.model.embed_tokens.weight
        embedding.copy_(embedding.bfloat16())
        tokens = random_tokens(6)
        expected = model(torch.from_numpy(tokens)[None].long()).logits[0].numpy()
    rows = np.arange(6, dtype=np.int32)
    logits = decoder.forward(tokens, rows * 0, rows, ints([5]))
    np.testing.assert_allclose(logits, expected[[5]], atol=2e-3, rtol=1e-2)
    decoder.close()


def test_rows_do_not_depend_on_their_neighbours(decoder: CudaDecoder) -> None:
    tokens, alone = random_tokens(4), []
    for position, token in enumerate(tokens.tolist()):
        row = ints([0])
        alone.append(decoder.forward(ints([token]), row, ints([position]), row)[0].copy())
    slots = ints([2] * 4 + [1])
    positions = ints([*range(4), 0])
    wanted = np.arange(5, dtype=np.int32)
    together = decoder.forward(np.append(tokens, 5).astype(np.int32), slots, positions, wanted)
    for position in range(4):
        assert np.array_equal(together[position], alone[position])


def test_a_copied_prefix_serves_as_its_source(decoder: CudaDecoder) -> None:
    tokens, rows = random_tokens(6), np.arange(6, dtype=np.int32)
    decoder.forward(tokens, rows * 0, rows, ints([]), prefill=True)
    decoder.copy_prefix(0, 2, 6)
    row = ints([0])
    first = decoder.forward(ints([3]), ints([0]), ints([6]), row).copy()
    assert np.array_equal(first, decoder.forward(ints([3]), ints([2]), ints([6]), row))


def test_the_device_chooses_and_accepts_as_the_sampler_does(decoder: CudaDecoder) -> None:
    tokens, rows = random_tokens(8), np.arange(8, dtype=np.int32)
    slots = ints([0] * 4 + [1] * 4)
    positions = ints([0, 1, 2, 3] * 2)
    logits = decoder.forward(tokens, slots, positions, rows).copy()
    noise = [RowNoise(), RowNoise()] + [RowNoise(0.8, 2**63 + 5, 1, n) for n in range(6)]
    chosen = [int(row.argmax()) for row in logits[:2]]
    chosen += [choose_row(row, 0.8, 2**63 + 5, 1, n) for n, row in enumerate(logits[2:])]
    verified = decoder.verify(tokens, slots, positions, Wanted(rows, noise, [(0, 4), (4, 4)]))
    assert verified.tokens.tolist() == chosen
    expected = []
    for part in (0, 4):
        count = 0
        while count < 3 and chosen[part + count] == tokens[part + count + 1]:
            count += 1
        expected.append(count)
    assert verified.accepted.tolist() == expected
    assert np.array_equal(verified.top_ids, top_choices(logits, 8)[0])


def test_drafting_changes_no_token(decoder: CudaDecoder) -> None:
    drafting_changes_nothing(decoder, random_tokens(10, seed=3).tolist(), 6)


@pytest.mark.parametrize(("slot", "position"), [(0, 192), (3, 0)])
def test_rows_outside_of_the_slots_are_errors(decoder, slot: int, position: int) -> None:
    with pytest.raises(ValueError, match="outside"):
        decoder.forward(ints([0]), ints([slot]), ints([position]), ints([]))


def test_steps_run_eagerly_where_there_is_no_gpu(decoder: CudaDecoder) -> None:
    assert decoder.graphs.reason == "there is no GPU"
    assert [decoder.bucket(n) for n in (0, 1, 3, 16, 17, 64, 65)] == [0, 1, 4, 16, 32, 64, 65]
