"""From files to a decoder that serves: the native CPU kernels where they load, torch otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from atlasd.models.decoder import Decoder
from atlasd.models.locate import ModelFiles

Progress = Callable[[str, float], None]
WeightFormat = Literal["auto", "fp32", "bf16", "int8", "int4"]


@dataclass(frozen=True)
class LoadOptions:
    """How a model is to be served."""

    device: str = "auto"
    """``auto``, ``cpu`` or ``cuda``."""

    weight_format: WeightFormat = "auto"
    """``auto`` keeps the checkpoint's own: fp32 stays fp32, bf16 bf16, fp16 and GGUF become bf16."""

    slots: int = 0
    """0: as many as the memory budget holds, at most 16."""

    slot_tokens: int = 0
    """Positions per slot; 0: what the model was trained for, at most 8192."""

    threads: int = 0
    """0: measured once."""

    memory_bytes: int = 0
    """Budget for weights and slots together; 0: three quarters of what is free now."""

    cache_dir: Path | None = None
    """Where packed weights are kept between starts."""

    backend: Literal["auto", "native", "torch"] = "auto"


@dataclass(frozen=True)
class LoadedModel:
    """A decoder and what there is to say about it."""

    decoder: Decoder
    backend: str
    """``cpu kernels``, ``torch cpu`` or ``torch cuda``."""

    weight_format: str
    threads: int


def load_decoder(
    files: ModelFiles, options: LoadOptions, progress: Progress | None = None
) -> LoadedModel:
    """Load a model. Raises ModelError for what cannot be served or does not fit in memory."""
    raise ValueError("the decoders follow in a few minutes")
