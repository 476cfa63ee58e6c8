"""Models that other programs of this machine have fetched: Ollama's, LM Studio's, llama.cpp's. They
are read where they lie, never copied or changed."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from pathlib import Path

SYSTEM_OLLAMA = Path("/usr/share/ollama/.ollama/models")
"""Where Ollama keeps them when it runs as a service."""

WEIGHTS = "image.model"
"""How the media type ends of the layer that holds the weights."""


def find(name: str) -> Path | None:
    """The GGUF file of a model by Ollama's name for it; without a tag it is ``latest``."""
    tagged = name if ":" in name else f"{name}:latest"
    return next((path for known, path in _of_ollama() if known == tagged), None)


def found() -> Iterator[tuple[str, Path]]:
    """(what to give as its name, the GGUF file) of each model, in order."""
    yield from sorted(_of_ollama())
    for folder in _folders_of_files():
        for path in sorted(folder.rglob("*.gguf")):
            # What sees pictures, and parts of a whole, are no models by themselves.
            if not path.name.startswith("mmproj") and "-of-0" not in path.name:
                yield str(path), path


def _of_ollama() -> Iterator[tuple[str, Path]]:
    own = os.environ.get("OLLAMA_MODELS", "")
    for folder in (Path(own) if own else _home() / ".ollama" / "models", SYSTEM_OLLAMA):
        for manifest in folder.glob("manifests/*/*/*/*"):
            owner, name, tag = manifest.parts[-3:]
            blob = _weights(manifest, folder)
            if blob is not None:
                yield f"{'' if owner == 'library' else f'{owner}/'}{name}:{tag}", blob


def _weights(manifest: Path, folder: Path) -> Path | None:
    """The file a manifest names; None if it names none, or another program's broken download."""
    try:
        layers = json.loads(manifest.read_text(encoding="utf-8"))["layers"]
        digest = next(one["digest"] for one in layers if one["mediaType"].endswith(WEIGHTS))
        blob = folder / "blobs" / Path(str(digest).replace(":", "-")).name
        return blob if blob.is_file() else None
    except (OSError, ValueError, KeyError, TypeError, StopIteration):
        return None


def _folders_of_files() -> list[Path]:
    home = _home()
    cache = os.environ.get("XDG_CACHE_HOME", "")
    cached = Path(cache) if cache.startswith("/") else home / ".cache"
    given = os.environ.get("LLAMA_CACHE", "")
    return [
        home / ".lmstudio" / "models",
        cached / "lm-studio" / "models",
        Path(given) if given else cached / "llama.cpp",
    ]


def _home() -> Path:
    return Path(os.environ.get("HOME") or "/")
