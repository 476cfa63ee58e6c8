"""What serves a loaded model beside its step loop: its drafters with what they learn, and its
successor where weights are replaced in place."""

from __future__ import annotations

from atlasd_kernels.cpu import CpuDecoder

from atlasd.draft.cut import Costs
from atlasd.draft.neural import Neural
from atlasd.draft.registry import Drafting, installed_drafters
from atlasd.draft.static import adaptable, static_or_none
from atlasd.engine.loading import Served
from atlasd.engine.spare import SpareSlot
from atlasd.engine.steps import Engine
from atlasd.errors import ModelError
from atlasd.learn.files import AdapterFiles
from atlasd.learn.learner import Learner
from atlasd.learn.versions import Key
from atlasd.models.decoder import kept_states
from atlasd.models.load import LoadOptions, load_decoder
from atlasd.models.locate import find_model
from atlasd.paths import Paths


def drafting_for(
    served: Served,
    engine: Engine,
    folders: Paths,
    neural: Neural | None = None,
    costs: Costs | None = None,
) -> Drafting:
    """All drafters for a model, and the learner of the static one where it can be adapted.

    ``neural`` is the static drafter (None: found); ``costs`` what steps cost (None: as measured).
    """
    folder = folders.cache / "drafting" / served.fingerprint
    if neural is None:
        slots = served.loaded.decoder.slots
        neural = static_or_none(served.files, served.fingerprint, folders, slots=slots)
    drafting = Drafting(
        vocab_size=served.loaded.decoder.vocab_size,
        fingerprint=served.fingerprint,
        costs=costs or served.costs,
        folder=folder,
        extra=installed_drafters(),
        neural=neural,
        line_ends=served.line_ends,
    )
    target = served.loaded.decoder
    if neural is not None and neural.model.carries and isinstance(target, CpuDecoder):
        target.keep_states()
    model = adaptable(neural)
    if neural is not None and model is not None and Learner.can_learn(model):
        key = Key(served.fingerprint, served.identity, model.identity)
        learner = Learner(
            model,
            neural,
            costs or served.costs,
            files=AdapterFiles(folder / "adapter", key),
            target=SpareSlot(engine, served.costs),
            promoted=drafting.promoted,
            told=drafting.recycle.add_choices,
        )
        drafting.learn_with(learner, learner)
    return drafting


def replace_weights(
    served: Served, engine: Engine, drafting: Drafting | None, model: str, folders: Paths
) -> None:
    """Serve other weights of the same shape from now on, loaded as those so far were.

    Raises ModelError if the shape is another; whatever is wrong with them, the old ones stay.
    ``drafting`` None: nobody is told."""
    files = find_model(model, folders)
    now = served.loaded
    options = LoadOptions(
        weight_format=now.weight_format,
        slots=now.decoder.slots,
        slot_tokens=now.decoder.slot_tokens,
        threads=now.threads,
        # Not cached: weights in training are seldom loaded twice.
        backend="native" if now.backend == "cpu kernels" else "torch",
    )
    loaded = load_decoder(files, options)
    if loaded.config != now.config:
        loaded.decoder.close()
        raise ModelError(f"{model} has another shape than {served.name}.")
    if isinstance(loaded.decoder, CpuDecoder) and kept_states(now.decoder) is not None:
        loaded.decoder.keep_states()
    now.decoder.close()
    served.loaded, served.identity = loaded, files.identity
    engine.replace(loaded.decoder)
    if drafting is not None:
        drafting.target_changed(files.identity)
