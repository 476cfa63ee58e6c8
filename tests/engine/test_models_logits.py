"""The torch decoder against transformers: every family, prefill, decode and mixed rows."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from atlasd.models.load import LoadOptions, load_decoder
from atlasd.models.locate import find_model
from tests.engine.models_checkpoints import FAMILIES, random_model, random_tokens, save

PROMPT, LENGTH = 150, 230
TOLERANCE = 1e-4


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def ints(values: object) -> np.ndarray:
    return np.asarray(values, np.int32)


@pytest.mark.parametrize("backend", ["torch", "native"])
@pytest.mark.parametrize("family", FAMILIES)
def test_logits_agree_with_transformers(family: str, backend: str, tmp_path: Path) -> None:
    from atlasd_kernels import cpu

    if backend == "native" and not cpu.available()[0]:
        pytest.skip(f"the CPU kernels do not load here: {cpu.available()[1]}")
    model = random_model(family)
    one, other = random_tokens(LENGTH), random_tokens(LENGTH, seed=1)
    with torch.inference_mode():
        expected = [model(torch.from_numpy(t)[None].long()).logits[0].numpy() for t in (one, other)]
    files = find_model(str(save(model, tmp_path)))
    options = LoadOptions(device="cpu", backend=backend, slots=3, slot_tokens=256, threads=1)
    decoder = load_decoder(files, options).decoder

    whole = ints(range(PROMPT))
    for slot, tokens, wanted in ((0, one, expected[0]), (2, other, expected[1])):
        given = ints([slot] * PROMPT)
        logits = decoder.forward(tokens[:PROMPT], given, whole, whole, prefill=True)
        np.testing.assert_allclose(logits, wanted[:PROMPT], atol=TOLERANCE, rtol=TOLERANCE)

    at = PROMPT
    for rows in (1, 3, 8, 21, 1):
        positions = ints(range(at, at + rows))
        # Rows of two streams in one call, of different lengths.
        tokens = np.concatenate((one[positions], other[at : at + 1]))
        slots = ints([0] * rows + [2])
        logits = decoder.forward(
            tokens, slots, np.append(positions, ints([at])), ints(range(rows + 1))
        )
        wanted = np.concatenate((expected[0][positions], expected[1][at : at + 1]))
        np.testing.assert_allclose(logits, wanted, atol=TOLERANCE, rtol=TOLERANCE)
        decoder.forward(other[positions], ints([2] * rows), positions, ints([]))
        at += rows
    decoder.close()


def test_bf16_weights_give_what_transformers_gives_with_the_same_values(tmp_path: Path) -> None:
    model = random_model("qwen2").to(torch.bfloat16)
    tokens = random_tokens(100)
    with torch.inference_mode():
        expected = model.float()(torch.from_numpy(tokens)[None].long()).logits[0].numpy()
    files = find_model(str(save(model.to(torch.bfloat16), tmp_path)))
    loaded = load_decoder(
        files, LoadOptions(backend="torch", device="cpu", slots=1, slot_tokens=128)
    )
    assert loaded.weight_format == "bf16"
    rows = ints(range(100))
    logits = loaded.decoder.forward(tokens, ints([0] * 100), rows, rows, prefill=True)
    # Weights are exact in bf16; where the processor multiplies bf16, activations are rounded too.
    assert np.abs(logits - expected).mean() < 0.05 * expected.std()
    assert (logits.argmax(1) == expected.argmax(1)).mean() > 0.9


def test_a_prefix_copied_to_another_slot_serves_there(tmp_path: Path) -> None:
    model = random_model("llama 3")
    files = find_model(str(save(model, tmp_path)))
    options = LoadOptions(backend="torch", device="cpu", slots=2, slot_tokens=256, threads=1)
    decoder = load_decoder(files, options).decoder
    tokens, rows = random_tokens(130), ints(range(130))
    decoder.forward(tokens, ints([0] * 130), rows, ints([]), prefill=True)
    decoder.copy_prefix(0, 1, 128)
    tail = ints([128, 129])
    both = [
        decoder.forward(tokens[128:], ints([slot] * 2), tail, ints([1]), prefill=True).copy()
        for slot in (0, 1)
    ]
    assert np.array_equal(*both)
