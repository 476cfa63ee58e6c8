"""Finding models: bundled, folders, GGUF files, the Hugging Face cache, and one-line errors."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from atlasd.errors import ModelError
from atlasd.models import hub
from atlasd.models.locate import find_model, is_complete

CONFIG = {"architectures": ["Qwen2ForCausalLM"]}


def checkpoint(folder: Path, **config: Any) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps({**CONFIG, **config}))
    (folder / "tokenizer.json").write_text("{}")
    save_file({"weight": np.zeros(4, np.float32)}, folder / "model.safetensors")
    return folder


def shards(folder: Path, names: list[str], present: list[str]) -> Path:
    checkpoint(folder)
    (folder / "model.safetensors").unlink()
    index = {"weight_map": {f"weight.{number}": name for number, name in enumerate(names)}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    for name in present:
        save_file({"weight": np.zeros(4, np.float32)}, folder / name)
    return folder


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty Hugging Face cache, and no network."""
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def cached(cache: Path, name: str) -> Path:
    """A snapshot folder laid out as the hub's cache lays it out."""
    repository = cache / f"models--{name.replace('/', '--')}"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("0123abc")
    folder = repository / "snapshots" / "0123abc"
    folder.mkdir(parents=True)
    return folder


def test_a_folder_is_found_by_its_path(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "my-model")
    files = find_model(str(folder))
    assert (files.name, files.kind, files.path, files.source) == (
        "my-model",
        "folder",
        folder,
        "path",
    )
    assert files.weight_files == [folder / "model.safetensors"]
    assert files.weight_bytes == (folder / "model.safetensors").stat().st_size


def test_the_identity_changes_with_weights_and_configuration(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path)
    first = find_model(str(folder)).identity
    assert find_model(str(folder)).identity == first
    save_file({"weight": np.ones(5, np.float32)}, folder / "model.safetensors")
    second = find_model(str(folder)).identity
    checkpoint(folder, rope_theta=5)
    assert len({first, second, find_model(str(folder)).identity}) == 3


def test_shards_are_all_found(tmp_path: Path) -> None:
    folder = shards(
        tmp_path, ["a.safetensors", "b.safetensors"], ["b.safetensors", "a.safetensors"]
    )
    names = [file.name for file in find_model(str(folder)).weight_files]
    assert names == ["a.safetensors", "b.safetensors"]


def broken(kind: str, folder: Path) -> str:
    """Something that cannot be loaded, and its name."""
    if kind == "no config":
        folder.mkdir()
    elif kind == "gguf inside":
        folder.mkdir()
        (folder / "model-q8_0.gguf").write_bytes(b"GGUF")
    elif kind == "broken config":
        checkpoint(folder)
        (folder / "config.json").write_text("{")
    elif kind == "list as config":
        checkpoint(folder)
        (folder / "config.json").write_text("[]")
    elif kind == "pickles":
        checkpoint(folder)
        (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    elif kind == "missing shard":
        shards(folder, ["a.safetensors", "b.safetensors"], ["a.safetensors"])
    elif kind == "shard outside":
        shards(folder / "model", ["../a.safetensors"], ["../a.safetensors"])
        return str(folder / "model")
    elif kind == "other file":
        folder.mkdir()
        (folder / "model.bin").write_bytes(b"")
        return str(folder / "model.bin")
    elif kind == "missing gguf":
        return str(folder / "nothing.gguf")
    elif kind == "nonsense":
        return "no such model"
    return str(folder)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("no config", "has no config.json"),
        ("gguf inside", "Give the GGUF file itself"),
        ("broken config", "cannot be read"),
        ("list as config", "no JSON object"),
        ("pickles", "only pickled weights, which atlasd never opens"),
        ("missing shard", "lacks 1 of 2 weight files"),
        ("shard outside", "outside its folder"),
        ("other file", "neither a folder nor a GGUF file"),
        ("missing gguf", "There is no file"),
        ("nonsense", "`atlasd models` lists"),
    ],
)
def test_what_cannot_be_loaded_is_a_one_line_error(kind: str, said: str, tmp_path: Path) -> None:
    name = broken(kind, tmp_path / "model")
    with pytest.raises(ModelError) as caught:
        find_model(name)
    assert said in str(caught.value)
    assert caught.value.hint
    assert "\n" not in str(caught.value)


def test_a_hub_id_is_found_in_the_cache_without_the_network(cache: Path) -> None:
    folder = checkpoint(cached(cache, "someone/their-model"))
    files = find_model("someone/their-model")
    assert (files.name, files.path, files.source) == ("someone/their-model", folder, "hub")
    assert list(hub.cached_models()) == [("someone/their-model", folder)]


def test_an_incomplete_snapshot_is_not_used(cache: Path) -> None:
    folder = shards(
        cached(cache, "someone/half"), ["a.safetensors", "b.safetensors"], ["a.safetensors"]
    )
    assert not is_complete(folder)
    with pytest.raises(ModelError, match="could not be downloaded"):
        find_model("someone/half")


def test_a_hub_id_that_is_nowhere_says_what_to_do(cache: Path) -> None:
    with pytest.raises(ModelError) as caught:
        find_model("someone/unknown")
    assert "could not be downloaded" in caught.value.message
    assert "network" in caught.value.hint
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"HF_HUB_CACHE": "/a"}, "/a"),
        ({"HF_HOME": "/b"}, "/b/hub"),
        ({"XDG_CACHE_HOME": "/c"}, "/c/huggingface/hub"),
    ],
)
def test_the_cache_is_where_the_hub_library_puts_it(
    variables: dict[str, str], expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("HF_HUB_CACHE", "HF_HOME", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert hub.cache_folder() == Path(expected)


def test_a_download_asks_for_nothing_that_carries_code(
    cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from huggingface_hub.utils import filter_repo_objects

    offered = [
        "config.json",
        "model-00001-of-00002.safetensors",
        "model.safetensors.index.json",
        "pytorch_model.bin",
        "modeling_custom.py",
        "training_args.pt",
        "chat_template.jinja",
        "onnx/model.safetensors",
        "consolidated.safetensors",
        "model.gguf",
    ]
    taken = filter_repo_objects(offered, allow_patterns=hub.PATTERNS, ignore_patterns=hub.IGNORED)
    assert sorted(taken) == [
        "chat_template.jinja",
        "config.json",
        "model-00001-of-00002.safetensors",
        "model.safetensors.index.json",
    ]


def test_a_download_reports_its_bytes(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[tuple[str, float]] = []

    def snapshot(name: str, *, tqdm_class: Any, **options: Any) -> str:
        with tqdm_class(total=200, unit="B", desc="files") as bar:
            bar.update(50)
            bar.update(150)
        return str(checkpoint(cached(cache, name)))

    monkeypatch.setattr("huggingface_hub.snapshot_download", snapshot)
    files = find_model("someone/new", progress=lambda stage, part: heard.append((stage, part)))
    assert files.source == "hub"
    assert heard == [("downloading someone/new", 0.25), ("downloading someone/new", 1.0)]
