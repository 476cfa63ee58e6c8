"""Write a checkpoint as a Hugging Face Qwen2 folder: bf16 safetensors, configuration, tokenizer.

python -m training.export --run decayed --out atlasd/models/bundled/target
"""

import argparse
import json
import shutil
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from training.carry import DraftModel
from training.fetch import HERE
from training.model import Decoder, Shape
from training.smear import SmearedLayer
from training.tokenizer import end_id
from training.train import RUNS

# Trained on both orders, but so far it continues better than it fills: "prefix" comes first. Take
# it away when `evaluate --only holes` says that filling has become the better one.
FIM_ORDERS = ["prefix", "psm", "spm"]
CONTEXT = 2048  # tokens; no longer sequence was ever trained on


def to_qwen2(model: Decoder) -> dict[str, Tensor]:
    """The state under Qwen2's names, fused projections taken apart."""
    shape, state = model.shape, {}
    state["model.embed_tokens.weight"] = model.embed.weight
    state["model.norm.weight"] = model.norm.weight
    for number, layer in enumerate(model.layers):
        at = f"model.layers.{number}."
        for kind in ("weight", "bias"):
            parts = getattr(layer.qkv, kind).split(layer.splits)
            for name, part in zip("qkv", parts, strict=True):
                state[f"{at}self_attn.{name}_proj.{kind}"] = part
        gate, up = layer.gate_up.weight.split(shape.intermediate)
        state[f"{at}self_attn.o_proj.weight"] = layer.out.weight
        state[f"{at}mlp.gate_proj.weight"] = gate
        state[f"{at}mlp.up_proj.weight"] = up
        state[f"{at}mlp.down_proj.weight"] = layer.down.weight
        state[f"{at}input_layernorm.weight"] = layer.norm1.weight
        state[f"{at}post_attention_layernorm.weight"] = layer.norm2.weight
    return {name: tensor.detach().clone() for name, tensor in state.items()}


def from_qwen2(state: dict[str, Tensor], shape: Shape) -> Decoder:
    """The inverse of `to_qwen2`, in fp32."""
    state = {name: tensor.float() for name, tensor in state.items()}
    fused = {
        "embed.weight": state["model.embed_tokens.weight"],
        "norm.weight": state["model.norm.weight"],
    }
    for number in range(shape.layers):
        at, to = f"model.layers.{number}.", f"layers.{number}."
        for kind in ("weight", "bias"):
            parts = [state[f"{at}self_attn.{name}_proj.{kind}"] for name in "qkv"]
            fused[f"{to}qkv.{kind}"] = torch.cat(parts)
        gate_up = [state[f"{at}mlp.{name}_proj.weight"] for name in ("gate", "up")]
        fused[f"{to}gate_up.weight"] = torch.cat(gate_up)
        fused[f"{to}out.weight"] = state[f"{at}self_attn.o_proj.weight"]
        fused[f"{to}down.weight"] = state[f"{at}mlp.down_proj.weight"]
        fused[f"{to}norm1.weight"] = state[f"{at}input_layernorm.weight"]
        fused[f"{to}norm2.weight"] = state[f"{at}post_attention_layernorm.weight"]
    model = Decoder(shape)
    model.load_state_dict(fused)
    return model


def configuration(shape: Shape) -> dict[str, object]:
    return {
        "architectures": ["Qwen2ForCausalLM"],
        "atlasd": {"fim_orders": FIM_ORDERS},  # read by atlasd.completion, ignored elsewhere
        "attention_dropout": 0.0,
        "bos_token_id": None,
        "eos_token_id": end_id(shape.vocabulary),
        "head_dim": shape.head_dim,
        "hidden_act": "silu",
        "hidden_size": shape.hidden,
        "initializer_range": 0.02,
        "intermediate_size": shape.intermediate,
        "max_position_embeddings": CONTEXT,
        "max_window_layers": shape.layers,
        "model_type": "qwen2",
        "num_attention_heads": shape.heads,
        "num_hidden_layers": shape.layers,
        "num_key_value_heads": shape.kv_heads,
        "rms_norm_eps": shape.norm_eps,
        "rope_theta": shape.rope_theta,
        "sliding_window": None,
        "tie_word_embeddings": True,
        "torch_dtype": "bfloat16",
        "use_cache": True,
        "use_sliding_window": False,
        "vocab_size": shape.vocabulary,
    }


def shape_of(folder: Path) -> Shape:
    config = json.loads((folder / "config.json").read_text())
    return Shape(
        hidden=config["hidden_size"],
        layers=config["num_hidden_layers"],
        heads=config["num_attention_heads"],
        kv_heads=config["num_key_value_heads"],
        intermediate=config["intermediate_size"],
        vocabulary=config["vocab_size"],
        head_dim=config["head_dim"],
        rope_theta=config["rope_theta"],
        norm_eps=config["rms_norm_eps"],
    )


def load(folder: Path) -> Decoder:
    """A shipped folder as a trainable decoder."""
    return from_qwen2(load_file(folder / "model.safetensors"), shape_of(folder))


def _extras(model: DraftModel) -> dict[str, nn.Linear]:
    """The maps that other engines do not know, by the name of their file."""
    layer = model.layers[0]
    assert isinstance(layer, SmearedLayer)
    return {"carry": model.carry, "smear": layer.smear}


def load_draft_model(folder: Path) -> DraftModel:
    """A shipped drafter as a trainable one; a map that it does not have yet is zero."""
    plain = load(folder)
    model = DraftModel(plain.shape)
    model.load_state_dict(plain.state_dict(), strict=False)
    for name, linear in _extras(model).items():
        file = folder / f"{name}.safetensors"
        if file.exists():
            linear.weight.data.copy_(load_file(file)["weight"])
    return model


def write_extras(model: DraftModel, out: Path) -> None:
    """What other engines do not know, in files of its own beside a checkpoint: fp32, small."""
    for name, linear in _extras(model).items():
        file = out / f"{name}.safetensors"
        save_file({"weight": linear.weight.detach().contiguous()}, file)
        file.chmod(0o644)


def save_weights(state: dict[str, Tensor], file: Path) -> None:
    half = {name: tensor.bfloat16().contiguous() for name, tensor in state.items()}
    save_file(half, file, metadata={"format": "pt"})
    file.chmod(0o644)


def write(model: Decoder, out: Path, tokenizer: Path) -> None:
    out.mkdir(parents=True, exist_ok=True)
    save_weights(to_qwen2(model), out / "model.safetensors")
    end = end_id(model.shape.vocabulary)
    generation = {"do_sample": False, "eos_token_id": [end, end + 2], "pad_token_id": end}
    for name, content in (
        ("config", configuration(model.shape)),
        ("generation_config", generation),
    ):
        (out / f"{name}.json").write_text(json.dumps(content, indent=2) + "\n")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copyfile(tokenizer / name, out / name)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--run", default="decayed")
    parser.add_argument("--tokenizer", type=Path, default=HERE / "work" / "tokenizer")
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    saved = torch.load(RUNS / args.run / "checkpoint.pt", weights_only=False)
    model = Decoder(Shape(**saved["shape"]))
    model.load_state_dict(saved["model"])
    write(model, args.out, args.tokenizer)
    print(f"{args.run} at step {saved['step']}, {saved['tokens'] / 1e6:.1f}M tokens -> {args.out}")


if __name__ == "__main__":
    main()
