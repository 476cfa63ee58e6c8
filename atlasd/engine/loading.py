"""From a ``Load`` message to a decoder that serves, with its thread count and step costs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, cast, get_args

from atlasd.engine.calibration import Calibration, Calibrations, calibration_key
from atlasd.engine.clock import StepClock
from atlasd.engine.costs import StepCosts
from atlasd.engine.measure import measure_costs
from atlasd.engine.protocol import Load, Ready
from atlasd.errors import ModelError
from atlasd.models.load import LoadedModel, LoadOptions, WeightFormat, load_decoder
from atlasd.models.locate import ModelFiles, find_model
from atlasd.paths import Paths

Progress = Callable[[str, float], None]
Backend = Literal["auto", "native", "torch"]

MEASURING_S = 1.5
"""Time that measuring step costs may take at a first start."""


@dataclass
class Served:
    """A loaded model and what was measured of it."""

    files: ModelFiles
    name: str
    fingerprint: str
    identity: str
    """Of the weights that serve now: they may have been replaced."""
    loaded: LoadedModel
    costs: StepCosts
    key: str
    calibrated: bool
    """Thread count and costs are those of an earlier run."""
    line_ends: list[int]
    """The tokens that end a line; empty: not known."""

    def calibration(self) -> Calibration:
        return Calibration(self.loaded.threads, self.costs.snapshot())

    def ready(self, drafters: list[str]) -> Ready:
        """What the daemon is told."""
        decoder = self.loaded.decoder
        return Ready(
            model=self.name,
            backend=self.loaded.backend,
            dtype=self.loaded.weight_format,
            threads=self.loaded.threads,
            slots=decoder.slots,
            slot_tokens=decoder.slot_tokens,
            memory=decoder.memory_bytes(),
            drafters=drafters,
        )


def clock_of(loaded: LoadedModel) -> StepClock:
    """How this model's steps are timed."""
    return StepClock(on_cpu=not loaded.backend.endswith("cuda"))


def load(load: Load, calibrations: Calibrations, paths: Paths, progress: Progress) -> Served:
    """Find and load the model, and measure it if it is new here. Raises ModelError."""
    files = find_model(load.model, paths, progress)
    if load.dtype not in ("auto", *get_args(WeightFormat)):
        known_formats = ", ".join(("auto", *get_args(WeightFormat)))
        raise ModelError(
            f"There is no weight format {load.dtype!r}.", f"Use one of {known_formats}."
        )
    if load.backend not in get_args(Backend):
        raise ModelError(f"There is no backend {load.backend!r}.", "Use auto, native or torch.")
    key = calibration_key(files.identity, load.dtype, load.backend)
    known = calibrations.get(key)
    loaded = load_decoder(
        files,
        LoadOptions(
            weight_format=cast("WeightFormat | Literal['auto']", load.dtype),
            slots=load.slots,
            slot_tokens=load.slot_tokens,
            threads=load.threads or (known.threads if known is not None else 0),
            cache_dir=paths.cache / "weights",
            backend=cast("Backend", load.backend),
        ),
        progress,
    )
    costs = StepCosts(loaded.decoder.bucket)
    calibrated = known is not None and costs.restore(known.costs)
    if not calibrated:
        progress("measuring steps", 0.0)
        measure_costs(
            loaded.decoder,
            costs,
            MEASURING_S,
            lambda done: progress("measuring steps", done),
            clock_of(loaded),
        )
    return Served(
        files=files,
        name=files.name,
        fingerprint=load.fingerprint or files.identity,
        identity=files.identity,
        loaded=loaded,
        costs=costs,
        key=key,
        calibrated=calibrated,
        line_ends=load.line_ends,
    )
