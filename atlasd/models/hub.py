"""The Hugging Face hub: what its cache already holds, and downloading a model asked for by name.

The cache is read by its documented layout, so that looking costs no import of ``huggingface_hub``;
only a download uses the library. Downloads take safetensors and JSON, nothing that can carry code.
"""

from __future__ import annotations

import io
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from atlasd.errors import ModelError
from atlasd.paths import expanded

PATTERNS = ["*.safetensors", "*.json", "*.jinja"]
IGNORED = ["*/*", "consolidated*"]
"""Subfolders (other runtimes' formats), and the second copy of the weights that Mistral ships."""


def cache_folder() -> Path:
    """The hub cache in force, from the variables that ``huggingface_hub`` honours."""
    if folder := os.environ.get("HF_HUB_CACHE"):
        return expanded(folder)
    home = os.environ.get("HF_HOME")
    if home is None:
        home = os.path.join(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface")
    return expanded(home) / "hub"


def cached_snapshot(name: str) -> Path | None:
    """The newest cached snapshot folder of a hub id, complete or not."""
    repository = cache_folder() / f"models--{name.replace('/', '--')}"
    try:
        revision = (repository / "refs" / "main").read_text(encoding="utf-8").strip()
    except OSError:
        return None
    snapshot = repository / "snapshots" / revision
    return snapshot if snapshot.is_dir() else None


def cached_models() -> Iterator[tuple[str, Path]]:
    """(hub id, snapshot folder) of every model in the cache, in order of name."""
    for repository in sorted(cache_folder().glob("models--*--*")):
        name = repository.name.removeprefix("models--").replace("--", "/", 1)
        if folder := cached_snapshot(name):
            yield name, folder


def download(name: str, progress: Callable[[str, float], None] | None = None) -> Path:
    """Download a model's safetensors and JSON files into the cache and return the folder.

    ``progress`` hears the fraction of the bytes. Raises ModelError if the hub cannot be reached or
    has no such model.
    """
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
    )

    try:
        folder = snapshot_download(
            name,
            allow_patterns=PATTERNS,
            ignore_patterns=IGNORED,
            tqdm_class=_progress_bar(f"downloading {name}", progress),
        )
    except GatedRepoError:
        raise ModelError(
            f"{name} asks you to accept its licence first.",
            "Accept it on its page on the hub, then run `hf auth login`.",
        ) from None
    except RepositoryNotFoundError:
        raise ModelError(
            f"The hub has no model {name}.",
            "Check the spelling; a private one needs `hf auth login`.",
        ) from None
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"{name} is not in the Hugging Face cache and could not be downloaded ({reason}).",
            "Check the network, or give a folder or a .gguf file.",
        ) from None
    return Path(folder)


def _progress_bar(stage: str, progress: Callable[[str, float], None] | None) -> type[Any]:
    """A silent tqdm class that reports the byte counts of a download to ``progress``."""
    from tqdm.auto import tqdm  # type: ignore[import-untyped]

    class Reported(tqdm):  # type: ignore[misc]
        def __init__(self, *args: Any, **kwargs: Any) -> None:
            kwargs["disable"] = False
            kwargs["file"] = io.StringIO()
            super().__init__(*args, **kwargs)

        def update(self, n: float | None = 1) -> bool | None:
            shown: bool | None = super().update(n)
            if progress and self.unit == "B" and self.total:
                progress(stage, min(1.0, self.n / self.total))
            return shown

    return Reported
