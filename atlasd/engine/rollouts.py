"""Sampling from a model that is being trained: batches with drafting, weights replaced in place.

    with Rollouts("checkpoints/0") as rollouts:
        for update in range(10):
            outputs = rollouts.sample(prompts, max_tokens=256, sampling=Sampling(temperature=1.0))
            ...                                  # train, write checkpoints/N
            rollouts.update(f"checkpoints/{update + 1}")
            rollouts.learn(seconds=5.0)          # or not at all: drafts only get worse by it

What is sampled is what plain decoding samples, token for token, whatever the drafters have learned
and of whichever weights: only the time changes. See docs/policy-drift.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic
from types import TracebackType

import msgspec

from atlasd.draft.cut import Costs
from atlasd.draft.static import load_static
from atlasd.engine.assembly import drafting_for, replace_weights
from atlasd.engine.calibration import Calibrations
from atlasd.engine.inprocess import Output, Outputs, request, run
from atlasd.engine.loading import clock_of, load
from atlasd.engine.native import fastest_choose
from atlasd.engine.planning import Planning
from atlasd.engine.protocol import Load, Sampling
from atlasd.engine.steps import Engine
from atlasd.errors import EngineError
from atlasd.models.locate import find_model
from atlasd.models.tokenizer import Tokenizer
from atlasd.paths import Paths, paths

SLICE_MS = 50.0


class Rollouts:
    """A model with its drafters in this process. Not thread-safe."""

    def __init__(
        self,
        model: str | Path | None = None,
        *,
        drafter: str | Path | None = None,
        costs: Costs | None = None,
        slots: int = 0,
        threads: int = 0,
    ) -> None:
        """``model`` and ``drafter`` are a folder, a GGUF file or a hub id; None: the bundled model,
        and the drafter that fits. ``costs`` None: step costs are measured; given ones are taken as
        they are, so that what is drafted does not depend on the machine."""
        self._home = TemporaryDirectory(prefix="atlasd-rollouts-")
        self._folders: Paths = paths({"ATLASD_HOME": self._home.name})
        name = None if model is None else str(model)
        tokenizer = Tokenizer.load(find_model(name, self._folders))
        loading = Load(
            model=name,
            slots=slots,
            threads=threads,
            fingerprint=tokenizer.fingerprint,
            line_ends=tokenizer.line_ends,
        )
        self._served = served = load(loading, Calibrations(), self._folders, _silent)
        self.outputs = Outputs()
        clock = clock_of(served.loaded)
        self.engine = Engine(
            served.loaded.decoder,
            self.outputs.take,
            costs=served.costs,
            choose=fastest_choose(),
            clock=clock,
        )
        neural = None
        if drafter is not None:
            neural = load_static(
                served.files,
                served.fingerprint,
                self._folders,
                slots=served.loaded.decoder.slots,
                threads=1,
                named=str(drafter),
            )
        self.drafting = drafting_for(served, self.engine, self._folders, neural, costs)
        planning = Planning(
            self.drafting.controller, served.costs if costs is None else None, clock
        )
        self.engine.set_planning(planning)
        self._number = 0

    def sample(
        self,
        prompts: Sequence[Sequence[int]],
        *,
        max_tokens: int,
        sampling: Sampling | None = None,
        stop_tokens: Sequence[int] = (),
        drafting: bool = True,
        learn: bool = True,
        repository: str | None = "rollouts",
        at_once: int = 0,
    ) -> list[Output]:
        """Decode all prompts together; outputs are in their order. Each prompt samples with a
        noise of its own (``choice`` counts up). ``learn`` False leaves the drafters as they are.
        ``at_once``: the next prompt waits until fewer than so many are decoded; 0: as many as the
        engine has slots for.

        Raises EngineError if a prompt cannot be decoded."""
        first = sampling or Sampling()
        numbers = range(self._number, self._number + len(prompts))
        self._number += len(prompts)
        engine = self.engine
        for index, (number, prompt) in enumerate(zip(numbers, prompts, strict=True)):
            while at_once and engine.streams + engine.queued >= at_once:
                engine.step()
            submit = request(
                number,
                prompt,
                max_tokens=max_tokens,
                sampling=msgspec.structs.replace(first, choice=first.choice + index),
                stop_tokens=stop_tokens,
                drafting=drafting,
            )
            submit.learn, submit.repository = learn, repository
            engine.submit(submit)
        run(engine)
        outputs = [self.outputs.pop(number) for number in numbers]
        for output in outputs:
            if output.reason == "error":
                raise EngineError(output.message)
        return outputs

    def update(self, model: str | Path, *, adapt: bool = True) -> None:
        """Sample from these weights from now on: another checkpoint of the same shape and
        tokenizer. Raises ModelError if it is not; the old weights then stay. ``adapt`` False: the
        drafters are not told (for comparison)."""
        told = self.drafting if adapt else None
        replace_weights(self._served, self.engine, told, str(model), self._folders)

    def learn(self, seconds: float) -> bool:
        """Train the adapter on what was sampled, for about this long; True if more is left."""
        end = monotonic() + seconds
        while (left := end - monotonic()) > 0:
            if not self.drafting.idle(min(SLICE_MS, 1e3 * left)):
                return False
        return True

    def close(self) -> None:
        """Free the model and remove what was learned."""
        self._served.loaded.decoder.close()
        self._home.cleanup()

    def __enter__(self) -> Rollouts:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def _silent(stage: str, fraction: float) -> None:
    """Nobody waits for progress here."""
