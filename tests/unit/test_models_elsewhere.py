"""Models that Ollama, LM Studio and llama.cpp have fetched are found and listed where they lie."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import gguf
import pytest

from atlasd import cli
from atlasd.errors import ModelError
from atlasd.models import elsewhere
from atlasd.models.gguf_file import architecture_of
from atlasd.models.locate import find_model


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    for variable in ("OLLAMA_MODELS", "LLAMA_CACHE", "XDG_CACHE_HOME", "HF_HOME", "HF_HUB_CACHE"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ATLASD_HOME", str(tmp_path / "atlasd"))
    monkeypatch.setattr(elsewhere, "SYSTEM_OLLAMA", tmp_path / "system")
    return tmp_path


def write(path: Path, architecture: str = "qwen2") -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, architecture)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def pulled(models: Path, name: str, architecture: str = "qwen2") -> Path:
    """As Ollama lays a model out: a manifest that names blobs by their digest."""
    made = write(models / "blobs" / "new", architecture)
    hexadecimal = hashlib.sha256(f"{name} {architecture}".encode()).hexdigest()
    blob = made.rename(models / "blobs" / f"sha256-{hexadecimal}")
    manifest = models / "manifests" / "a.host" / name.replace(":", "/")
    manifest.parent.mkdir(parents=True)
    kind = "application/vnd.ollama.image"
    layers = [{"mediaType": f"{kind}.license", "digest": "sha256:0"},
              {"mediaType": f"{kind}.model", "digest": f"sha256:{hexadecimal}"}]  # fmt: skip
    manifest.write_text(json.dumps({"schemaVersion": 2, "layers": layers}))
    return blob


def test_a_model_of_ollama_is_found_by_its_name_there(home: Path) -> None:
    models = home / ".ollama" / "models"
    coder = pulled(models, "library/qwen2.5-coder:7b")
    latest = pulled(models, "somebody/model:latest")
    assert find_model("qwen2.5-coder:7b").path == coder
    assert find_model("qwen2.5-coder:7b").name == "qwen2.5-coder:7b"
    assert find_model("somebody/model").path == latest
    # The engine is given the path, which has no suffix.
    assert find_model(str(coder)).kind == "gguf"
    with pytest.raises(ModelError, match=r"There is no model 'qwen2\.5-coder:14b'"):
        find_model("qwen2.5-coder:14b")


def test_a_service_and_a_folder_of_ones_own_are_looked_in(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blob = pulled(home / "system", "library/one:latest")
    assert find_model("one").path == blob
    own = pulled(home / "own", "library/two:latest")
    monkeypatch.setenv("OLLAMA_MODELS", str(home / "own"))
    assert find_model("two").path == own


@pytest.mark.parametrize("damage", ["no blob", "no json", "no layers", "outside", "no model"])
def test_a_broken_download_is_no_model(home: Path, damage: str) -> None:
    models = home / ".ollama" / "models"
    blob = pulled(models, "library/x:latest")
    manifest = models / "manifests/a.host/library/x/latest"
    if damage == "no blob":
        blob.unlink()
    elif damage == "outside":
        write(models / "secret")
        manifest.write_text(manifest.read_text().replace("sha256:" + blob.name[7:], "../secret"))
    else:
        said = {"no json": "{", "no layers": "{}", "no model": '{"layers": [{"mediaType": "a"}]}'}
        manifest.write_text(said[damage])
    assert elsewhere.find("x") is None
    assert list(elsewhere.found()) == []


def test_models_lists_them_with_what_cannot_be_served(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pulled(home / ".ollama" / "models", "library/qwen2.5-coder:1.5b")
    pulled(home / ".ollama" / "models", "library/gemma:2b", "gemma")
    studio = write(home / ".lmstudio/models/a/b/model-Q4_K_M.gguf", "llama")
    write(home / ".lmstudio/models/a/b/mmproj-model.gguf", "clip")
    write(home / ".lmstudio/models/a/big/model-00001-of-00002.gguf", "llama")
    cached = write(home / ".cache/llama.cpp/x.gguf", "qwen3")
    assert cli.main(["models", "--json"]) == 0
    listed = {one["name"]: one for one in json.loads(capsys.readouterr().out)["here"]}
    listed.pop("bundled")
    assert {name for name, one in listed.items() if one["usable"]} == {
        "qwen2.5-coder:1.5b", str(studio), str(cached)}  # fmt: skip
    assert listed.pop("gemma:2b")["why"] == "gemma is not served"
    assert len(listed) == 3


def test_the_architecture_is_read_alone(home: Path) -> None:
    assert architecture_of(write(home / "a", "qwen3")) == "qwen3"
    (home / "b").write_bytes(b"GGUF" + b"\xff" * 20)
    (home / "c").write_bytes(b"")
    assert architecture_of(home / "b") == architecture_of(home / "c") == ""
    assert architecture_of(home / "none") == ""
