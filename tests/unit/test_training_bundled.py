"""The shipped model files: other engines know them, and they say what they are."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from atlasd.draft.static import CPU_FORMAT
from training import export, tokenizer
from training.distill import drafted_ids

BUNDLED = Path(__file__).parents[2] / "atlasd/models/bundled"
TARGET = BUNDLED / "target"

pytestmark = pytest.mark.skipif(not TARGET.exists(), reason="no bundled model in this checkout")
TEXTS = [
    "def f(x):\n    return {'a': [1, 22, 333]}  # it's\r\n\r\n\tpass\n",
    "naïve café\u0301 变量 = 7;  /* … */ x\u00a0y\n\n\n    \n",
    "let s = r#\"raw\"#; // I'LL we've\n",
]


def test_transformers_loads_the_target_and_gives_our_logits() -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(TARGET, dtype=torch.float32).eval()
    tokens = torch.randint(0, theirs.config.vocab_size, (1, 96), generator=torch.Generator())
    with torch.no_grad():
        wanted = theirs(tokens).logits
        made = export.load(TARGET).eval().logits(tokens)
    assert torch.isfinite(wanted).all()
    torch.testing.assert_close(made, wanted, rtol=0, atol=1e-4)


def test_transformers_reads_the_tokenizer_as_qwen2() -> None:
    transformers = pytest.importorskip("transformers")
    theirs = transformers.AutoTokenizer.from_pretrained(TARGET)
    assert "Qwen2" in type(theirs).__name__
    ours = tokenizer.Tokenizer.from_file(str(TARGET / "tokenizer.json"))
    for text in TEXTS:
        assert theirs(text)["input_ids"] == ours.encode(text, add_special_tokens=False).ids
    for token in tokenizer.SPECIAL:
        assert len(theirs(token)["input_ids"]) == 1
    chat = theirs.apply_chat_template(
        [{"role": "user", "content": "Hi"}], tokenize=False, add_generation_prompt=True
    )
    assert chat == "<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n"


def test_text_survives_encoding_and_decoding() -> None:
    ours = tokenizer.Tokenizer.from_file(str(TARGET / "tokenizer.json"))
    for text in TEXTS:
        normal = ours.normalizer.normalize_str(text)
        assert ours.decode(ours.encode(text).ids) == normal


def test_the_pre_tokeniser_rule_is_qwen2s_to_the_character() -> None:
    theirs = pytest.importorskip("transformers.models.qwen2.tokenization_qwen2")
    assert tokenizer.QWEN2_PATTERN == theirs.PRETOKENIZE_REGEX
    rules = json.loads((TARGET / "tokenizer.json").read_text())
    assert (
        rules["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] == theirs.PRETOKENIZE_REGEX
    )
    assert rules["normalizer"] == {"type": "NFC"}


@pytest.mark.parametrize("name", ["drafter", "drafter-python"])
def test_a_drafter_shares_the_targets_embedding(name: str) -> None:
    folder = BUNDLED / name
    if not folder.exists():
        pytest.skip(f"no {name} in this checkout")
    target, drafter = export.load(TARGET), export.load(folder)
    assert torch.equal(drafter.embed.weight, target.embed.weight)
    assert drafter.shape.layers == 1
    ids = drafted_ids(folder)
    assert len(set(ids.tolist())) == len(ids) < target.shape.vocabulary
    extras = [load_file(file)["weight"].numel() for file in folder.glob("[cs]*.safetensors")]
    per_step = drafter.shape.parameters() - drafter.embed.weight.numel() + sum(extras)
    # as the CPU kernels serve them: four bits and a scale in 32 weights, against sixteen
    bits = {"int4": 4 + 16 / 32, "bf16": 16}
    cost = (per_step + len(ids) * drafter.shape.hidden) * bits[CPU_FORMAT]
    assert cost <= 0.30 * target.shape.parameters() * bits["bf16"], "costs too much to ask"


def test_the_weights_fit_the_package() -> None:
    files = list(BUNDLED.rglob("*.safetensors"))
    assert sum(file.stat().st_size for file in files) <= 48 * 2**20
    config = json.loads((TARGET / "config.json").read_text())
    assert config["model_type"] == "qwen2"
    assert config["tie_word_embeddings"]
