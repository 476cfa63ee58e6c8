"""From a model's name to its files: bundled, a folder, a GGUF file or a hub id.

The files that count are safetensors, JSON and GGUF; pickles are never opened and code that comes
with a checkpoint is never run.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from atlasd.errors import ModelError
from atlasd.models import elsewhere, hub
from atlasd.models.gguf_file import architecture_of, read_gguf
from atlasd.paths import Paths, expanded

Progress = Callable[[str, float], None]
"""Called with what is being done and how far it is (0..1)."""

BUNDLED = "bundled"
INDEX = "model.safetensors.index.json"
VOCABULARY_KEYS = ("tokens", "merges", "scores", "token_type")
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")


@dataclass(frozen=True)
class ModelFiles:
    """A model that was found, before anything of it is loaded."""

    name: str
    """What people see: ``bundled``, the hub id, or the name of the folder or file."""

    kind: Literal["folder", "gguf"]
    path: Path
    """The folder with config.json and safetensors, or the GGUF file."""

    config: Mapping[str, Any] = field(repr=False)
    """config.json, or the GGUF metadata without the vocabulary."""

    source: Literal["bundled", "path", "hub"] = "path"

    @property
    def weight_files(self) -> list[Path]:
        """The files that hold weights, in order."""
        if self.kind == "gguf":
            return [self.path]
        return safetensors_files(self.path)

    @property
    def weight_bytes(self) -> int:
        return sum(file.stat().st_size for file in self.weight_files)

    @property
    def identity(self) -> str:
        """A hash that changes when the weights or the configuration do: names packed weights and
        step costs. From names, sizes and times, so that it costs nothing."""
        digest = hashlib.sha256(json.dumps(self.config, sort_keys=True, default=str).encode())
        for file in self.weight_files:
            stat = file.stat()
            digest.update(f"{file.name} {stat.st_size} {stat.st_mtime_ns}\n".encode())
        return digest.hexdigest()[:16]


def find_model(
    name: str | None, paths: Paths | None = None, progress: Progress | None = None
) -> ModelFiles:
    """The files of a model named by the user; ``None`` and "bundled" are the bundled one.

    A hub id is looked up in the Hugging Face cache and downloaded only if it is not there; a name
    that Ollama has fetched a model under is read from there.
    Raises ModelError with what to do if there is no such model or it has no usable weights.
    """
    if name is None or name == BUNDLED:
        return bundled_model()
    path = expanded(name)
    if path.is_dir():
        return folder_model(path.resolve(), path.resolve().name)
    if path.suffix.lower() == ".gguf" or (path.is_file() and architecture_of(path)):
        return gguf_model(path.resolve())
    if path.is_file():
        raise ModelError(
            f"{path} is neither a folder nor a GGUF file.",
            "Give a folder with config.json and safetensors, a .gguf file, or a hub id.",
        )
    if (file := elsewhere.find(name)) is not None:
        return replace(gguf_model(file), name=name)
    if not HUB_ID.fullmatch(name):
        raise ModelError(
            f"There is no model {name!r}.",
            "Give a folder, a .gguf file, or a hub id such as Qwen/Qwen2.5-Coder-1.5B;"
            " `atlasd models` lists what there is.",
        )
    folder = hub.cached_snapshot(name)
    if folder is None or not is_complete(folder):
        folder = hub.download(name, progress)
    return folder_model(folder, name, "hub")


def bundled_model() -> ModelFiles:
    """The model that the package carries."""
    folder = Path(__file__).parent / "bundled" / "target"
    if not (folder / "config.json").is_file():
        raise ModelError(
            "This installation has no bundled model.",
            "Install the released package, or name a model with --model.",
        )
    return folder_model(folder, BUNDLED, "bundled")


def folder_model(
    folder: Path, name: str, source: Literal["bundled", "path", "hub"] = "path"
) -> ModelFiles:
    """A checkpoint folder; its configuration must be readable and its safetensors complete."""
    config_file = folder / "config.json"
    try:
        config = json.loads(config_file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        hint = "Give the folder that holds config.json, tokenizer.json and safetensors."
        if found := next(iter(sorted(folder.glob("*.gguf"))), None):
            hint = f"Give the GGUF file itself: {found}"
        raise ModelError(f"{folder} has no config.json.", hint) from None
    except (ValueError, OSError) as error:
        raise ModelError(f"{config_file} cannot be read ({error}).", "Download it again.") from None
    if not isinstance(config, dict):
        raise ModelError(f"{config_file} holds no JSON object.", "Download it again.")
    safetensors_files(folder)
    return ModelFiles(name, "folder", folder, config, source)


def gguf_model(path: Path) -> ModelFiles:
    """A GGUF file; its metadata must be readable."""
    metadata = dict(read_gguf(path).metadata)
    for key in VOCABULARY_KEYS:
        metadata.pop(f"tokenizer.ggml.{key}", None)
    return ModelFiles(path.stem, "gguf", path, metadata)


def safetensors_files(folder: Path) -> list[Path]:
    """The safetensors files of a folder, all shards present, or a ModelError that says why not."""
    index = folder / INDEX
    if index.is_file():
        try:
            shards = sorted(
                set(json.loads(index.read_text(encoding="utf-8"))["weight_map"].values())
            )
        except (ValueError, KeyError, AttributeError) as error:
            raise ModelError(f"{index} cannot be read ({error}).", "Download it again.") from None
        missing = [shard for shard in shards if not (folder / shard).is_file()]
        if missing:
            raise ModelError(
                f"{folder} lacks {len(missing)} of {len(shards)} weight files ({missing[0]}, …).",
                "Download the model again.",
            )
        # A shard's name is data from outside: it must not lead out of the folder.
        if any(Path(shard).name != shard for shard in shards):
            raise ModelError(f"{index} names files outside its folder.", "Do not use this model.")
        return [folder / shard for shard in shards]
    if (folder / "model.safetensors").is_file():
        return [folder / "model.safetensors"]
    pickled = any(folder.glob("*.bin")) or any(folder.glob("*.pt*"))
    raise ModelError(
        f"{folder} has no model.safetensors"
        + (", only pickled weights, which atlasd never opens." if pickled else "."),
        "Use a safetensors or GGUF version of the model.",
    )


def is_complete(folder: Path) -> bool:
    """Whether a cached snapshot holds configuration, tokenizer and all weights."""
    try:
        safetensors_files(folder)
    except ModelError:
        return False
    return (folder / "config.json").is_file() and (folder / "tokenizer.json").is_file()
