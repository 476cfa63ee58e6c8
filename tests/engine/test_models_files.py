"""Checkpoints in every form that is read, and one-line errors for those that are not."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from atlasd_kernels import cpu

from atlasd.errors import ModelError
from atlasd.models.config import config_from_gguf, config_from_json, read_config
from atlasd.models.gguf_file import read_gguf
from atlasd.models.load import LoadOptions, load_decoder
from atlasd.models.locate import find_model
from atlasd.models.memory import plan_slots
from atlasd.models.rope import rope_from_config
from atlasd.models.weights import float32, open_weights
from tests.engine.models_checkpoints import LLAMA3, random_model, random_tokens, save
from tests.engine.models_gguf import write_gguf


@pytest.fixture(autouse=True)
def one_thread() -> None:
    torch.set_num_threads(1)


def logits_of(path: Path, **options: Any) -> np.ndarray:
    """Logits of 100 prefilled rows."""
    given = {"backend": "torch", "device": "cpu", "slots": 1, "slot_tokens": 128, "threads": 1}
    decoder = load_decoder(find_model(str(path)), LoadOptions(**{**given, **options})).decoder
    rows = np.arange(100, dtype=np.int32)
    logits = decoder.forward(random_tokens(100), np.zeros_like(rows), rows, rows, prefill=True)
    return logits.copy()


def test_shards_give_the_same_as_one_file(tmp_path: Path) -> None:
    model = random_model("qwen3")
    one = save(model, tmp_path / "one")
    many = save(model, tmp_path / "many", max_shard_size="150KB")
    assert len(list(many.glob("*.safetensors"))) > 2
    assert np.array_equal(logits_of(many), logits_of(one))


@pytest.mark.parametrize(
    "family",
    ["llama linear", "qwen2 tied", "qwen2", "qwen2 yarn", "qwen3 tied", "mistral without window"],
)
def test_gguf_gives_the_same_as_safetensors(family: str, tmp_path: Path) -> None:
    model = random_model(family)
    folder = save(model, tmp_path / "folder")
    file = write_gguf(model, tmp_path / "model.gguf")
    np.testing.assert_allclose(logits_of(file), logits_of(folder), atol=1e-5)


def test_the_cpu_kernels_take_gguf_too(tmp_path: Path) -> None:
    if not cpu.available()[0]:
        pytest.skip(f"the CPU kernels do not load here: {cpu.available()[1]}")
    model = random_model("llama linear")
    folder = save(model, tmp_path / "folder")
    file = write_gguf(model, tmp_path / "model.gguf")
    given = [logits_of(path, backend="native") for path in (file, folder)]
    np.testing.assert_allclose(*given, atol=1e-5)


def test_llama_3_scaling_of_a_gguf_file_is_read_from_its_tensor(tmp_path: Path) -> None:
    model = random_model("llama 3")
    folder = save(model, tmp_path / "folder")
    scaled = rope_from_config("", {"rope_parameters": LLAMA3}, 16)[0].frequencies()
    plain = rope_from_config("", {"rope_theta": 10_000.0}, 16)[0].frequencies()
    file = write_gguf(model, tmp_path / "model.gguf", rope_divisors=plain / scaled)
    np.testing.assert_allclose(logits_of(file), logits_of(folder), atol=1e-4)


@pytest.mark.parametrize(
    ("kind", "dtype", "error"),
    [
        (gguf.GGMLQuantizationType.F16, "float16", 1e-3),
        (gguf.GGMLQuantizationType.BF16, "bfloat16", 1e-2),
        (gguf.GGMLQuantizationType.Q8_0, "quantised", 1e-2),
        (gguf.GGMLQuantizationType.Q4_0, "quantised", 0.1),
    ],
)
def test_quantised_gguf_is_dequantised(
    kind: gguf.GGMLQuantizationType, dtype: str, error: float, tmp_path: Path
) -> None:
    model = random_model("llama without groups")
    file = find_model(str(write_gguf(model, tmp_path / "model.gguf", kind)))
    config = read_config(file)
    assert config.dtype == dtype
    weights = open_weights(file, config)
    for name, tensor in model.state_dict().items():
        given = float32(weights[name])
        assert given.shape == tensor.shape
        assert np.abs(given - tensor.numpy()).max() <= error * np.abs(tensor.numpy()).max() + 1e-7
    assert np.isfinite(logits_of(file.path)).all()


def test_one_quantised_matrix_makes_a_file_a_quantised_one(tmp_path: Path) -> None:
    file = read_gguf(write_gguf(random_model("qwen2 tied"), tmp_path / "model.gguf"))
    assert config_from_gguf(file).dtype == "float32"
    name = "blk.1.attn_q.weight"
    mixed = {**file.tensors, name: replace(file.tensors[name], type=8)}
    assert config_from_gguf(replace(file, tensors=mixed)).dtype == "quantised"


def test_half_precision_files_are_read(tmp_path: Path) -> None:
    model = random_model("qwen2 tied")
    full = logits_of(save(model, tmp_path / "full"))
    half = logits_of(save(model.half(), tmp_path / "half"), weight_format="fp32")
    assert np.abs(full - half).max() < 0.02 * np.abs(full).max()


CONFIG: dict[str, Any] = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 100,
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"architectures": ["GPT2LMHeadModel"]}, "GPT2LMHeadModel"),
        ({"architectures": ["Qwen3MoeForCausalLM"]}, "Qwen3MoeForCausalLM"),
        ({"architectures": [], "model_type": "mamba"}, "mamba"),
        ({"rope_scaling": {"type": "longrope", "factor": 2.0}}, "longrope"),
        ({"rope_parameters": {"rope_type": "proportional"}}, "proportional"),
        ({"rope_parameters": {"full_attention": {"rope_type": "default"}}}, "default"),
        ({"partial_rotary_factor": 0.5}, "part of each head"),
        ({"quantization_config": {"quant_method": "gptq"}}, "gptq"),
        ({"hidden_act": "gelu"}, "gelu"),
        ({"mlp_bias": True}, "mlp_bias"),
        ({"attention_bias": True}, "attention_bias"),
    ],
)
def test_what_is_not_served_is_refused_with_the_list_of_what_is(
    changes: dict[str, Any], said: str
) -> None:
    with pytest.raises(ModelError) as caught:
        config_from_json("model", {**CONFIG, **changes})
    assert said in caught.value.message
    assert "What works:" in caught.value.hint
    assert "llama3" in caught.value.hint
    assert "\n" not in str(caught.value)


def test_a_configuration_of_transformers_4_is_read() -> None:
    config = config_from_json(
        "model",
        {
            **CONFIG,
            "rope_theta": 500_000.0,
            "rope_scaling": {**LLAMA3, "type": "llama3"},
            "torch_dtype": "bfloat16",
        },
    )
    assert (config.dtype, config.kv_heads, config.head_dim) == ("bfloat16", 4, 16)
    assert config.rope.inv_freq[0] == pytest.approx(1.0)


def test_an_incomplete_configuration_is_an_error() -> None:
    broken = {name: value for name, value in CONFIG.items() if name != "hidden_size"}
    with pytest.raises(ModelError, match="hidden_size"):
        config_from_json("model", broken)


def damage(folder: Path, what: str) -> None:
    """Break a saved checkpoint in one way."""
    weights = folder / "model.safetensors"
    if what == "truncated":
        weights.write_bytes(weights.read_bytes()[:-1000])
    elif what == "not safetensors":
        weights.write_bytes(b"PK\x03\x04 this is a pickle in a zip")
    elif what == "empty":
        weights.write_bytes(b"")
    else:
        config = json.loads((folder / "config.json").read_text())
        config |= {"wrong shape": {"intermediate_size": 999}, "too few": {"num_hidden_layers": 9}}[
            what
        ]
        (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("truncated", "cut off"),
        ("not safetensors", "not a readable safetensors file"),
        ("empty", "not a readable safetensors file"),
        ("wrong shape", "where the configuration says"),
        ("too few", "lacks the tensor model.layers.3."),
    ],
)
def test_damaged_checkpoints_are_errors(what: str, said: str, tmp_path: Path) -> None:
    folder = save(random_model("qwen2"), tmp_path)
    damage(folder, what)
    with pytest.raises(ModelError, match=said):
        logits_of(folder)


def test_a_truncated_gguf_file_is_an_error(tmp_path: Path) -> None:
    file = write_gguf(random_model("qwen2"), tmp_path / "model.gguf")
    file.write_bytes(file.read_bytes()[:-5000])
    with pytest.raises(ModelError, match="cut off"):
        logits_of(file)


def test_a_model_that_does_not_fit_is_refused_before_anything_is_allocated(tmp_path: Path) -> None:
    folder = save(random_model("qwen2"), tmp_path)
    with pytest.raises(ModelError) as caught:
        logits_of(folder, memory_bytes=100_000)
    assert "GiB" in caught.value.message
    assert "smaller model" in caught.value.hint


def test_slots_are_shortened_before_they_are_given_up() -> None:
    config = config_from_json("model", {**CONFIG, "max_position_embeddings": 32768})
    token_bytes = 2 * 2 * 4 * 16 * 4

    def plan(tokens: int) -> tuple[int, int]:
        found = plan_slots("m", config, 1000, 1000 + tokens * token_bytes, cache_item_bytes=4)
        return found.slots, found.slot_tokens

    assert plan(16 * 8192) == (16, 8192)
    assert plan(20 * 8192) == (16, 8192)
    assert plan(5 * 8192) == (5, 8192)
    assert plan(2 * 4096) == (2, 4096)
    assert plan(2048) == (1, 2048)
    with pytest.raises(ModelError):
        plan(2047)


def test_formats_that_only_the_kernels_know_are_refused_by_torch(tmp_path: Path) -> None:
    folder = save(random_model("qwen2"), tmp_path)
    with pytest.raises(ModelError, match="int4"):
        logits_of(folder, weight_format="int4")


def test_an_unknown_device_is_an_error(tmp_path: Path) -> None:
    folder = save(random_model("qwen2"), tmp_path)
    with pytest.raises(ModelError, match="tpu"):
        logits_of(folder, device="tpu")


def test_a_native_load_does_not_import_torch(tmp_path: Path) -> None:
    import subprocess
    import sys

    if not cpu.available()[0]:
        pytest.skip(f"the CPU kernels do not load here: {cpu.available()[1]}")
    folder = save(random_model("qwen2"), tmp_path)
    program = (
        "import sys; from atlasd.models.load import *; from atlasd.models.locate import find_model;"
        f"load_decoder(find_model({str(folder)!r}), LoadOptions(device='cpu', slots=1));"
        "assert not {'torch', 'transformers'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-W", "error", "-c", program], check=True, timeout=150)
