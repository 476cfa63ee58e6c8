"""Finding, checking and loading the static drafter of a model."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from time import perf_counter, thread_time
from typing import Any, Literal

import numpy as np
from atlasd_kernels import cpu
from atlasd_kernels.cpu import CpuDecoder
from atlasd_kernels.cpu.correction import Correction, LowRank, last_states
from atlasd_kernels.cpu.drafting import draft_chain
from safetensors.numpy import load_file

from atlasd.draft.adaptable import Adaptable
from atlasd.draft.drafter import Float32, Int32
from atlasd.draft.lookahead import Chain, ChainModel, Chains, Lookahead
from atlasd.draft.neural import CONTEXT, Neural, choose
from atlasd.errors import AtlasdError, ModelError
from atlasd.models import hub
from atlasd.models.config import read_config
from atlasd.models.decoder import Decoder
from atlasd.models.devices import choose_device
from atlasd.models.load import LoadOptions, WeightFormat, load_decoder
from atlasd.models.locate import ModelFiles, find_model, folder_model
from atlasd.models.tokenizer import Tokenizer
from atlasd.models.weights import open_weights
from atlasd.paths import Paths

log = logging.getLogger(__name__)

HEAD_FILE = "draft_head.json"
CARRY_FILE, SMEAR_FILE = "carry.safetensors", "smear.safetensors"
SLOT_TOKENS = 1024
SHALLOW_CONTEXT = 64
"""Tokens that a drafter of one layer reads: of the bundled one as many are accepted with 48
as with 384, and reading them is what the first ask of a stream costs."""
CPU_FORMAT: WeightFormat = "int4"
"""Of a drafter's weights on the CPU kernels. The text is the target's whatever a drafter says, so
that only its speed counts: of the bundled drafter's tokens 0.300 are accepted in bf16, 0.299 in
INT8 and 0.291 in INT4, and a chain takes 1, 0.4 and 0.25 times as long."""
_SHARE = 0.25
"""A drafter of more than this share of its target's weights cannot pay."""


def load_static(
    target: ModelFiles,
    fingerprint: str,
    folders: Paths,
    *,
    slots: int,
    threads: int = 0,
    named: str | None = None,
) -> Neural | None:
    """The static drafter for a target, or None where there is none.

    ``named`` (a folder or hub id) is taken if given, and refused with a ModelError if its tokenizer
    is another; else the bundled one for the bundled model, else the smallest model on disk of the
    target's family with the same tokenizer.
    """
    if named is not None:
        files = find_model(named, folders)
        if Tokenizer.load(files).fingerprint != fingerprint:
            raise ModelError(
                f"{named} has another tokenizer than {target.name}, so it cannot draft for it.",
                "Choose a smaller model of the same family.",
            )
    else:
        found = find_static(target, fingerprint)
        if found is None:
            return None
        files = found
    options = LoadOptions(
        weight_format=_weight_format(),
        slots=max(1, slots) + 1,  # the last one is for training
        slot_tokens=SLOT_TOKENS,
        threads=threads,
        cache_dir=folders.cache / "weights",
    )
    decoder = load_decoder(files, options).decoder
    load_extras(decoder, files.path)
    # Steps are measured in processor time on a CPU, so their drafts must be as well.
    alone = isinstance(decoder, CpuDecoder) and decoder.threads == 1
    model = chain_model(decoder, head_tokens(files.path), files)
    context = SHALLOW_CONTEXT if read_config(files).layers == 1 else CONTEXT
    drafter = Neural(model, thread_time if alone else perf_counter, context)
    drafter.measure()
    return drafter


def _weight_format() -> WeightFormat | Literal["auto"]:
    served = choose_device("auto", "auto") == "cpu" and cpu.available()[0]
    return CPU_FORMAT if served else "auto"


def static_or_none(
    target: ModelFiles, fingerprint: str, folders: Paths, *, slots: int
) -> Neural | None:
    """``load_static`` for a target that serves already: whatever is wrong with a drafter that
    nobody named costs the drafter, not the service."""
    try:
        # One thread: a drafter is too small to share out.
        return load_static(target, fingerprint, folders, slots=slots, threads=1)
    except (AtlasdError, OSError, ValueError, RuntimeError, MemoryError) as error:
        log.warning("%s is served without a static drafter: %s", target.name, error)
        return None


def find_static(target: ModelFiles, fingerprint: str) -> ModelFiles | None:
    """The drafter beside a bundled target, or the smallest of the target's family on disk."""
    beside = target.path.parent / "drafter"
    if target.source == "bundled" and (beside / "config.json").is_file():
        files = folder_model(beside, name="drafter", source="bundled")
        return files if _same_tokenizer(files, target, fingerprint) else None
    family = target.config.get("model_type")
    best: tuple[int, ModelFiles] | None = None
    for name, folder in hub.cached_models():
        try:
            files = folder_model(folder, name=name, source="hub")
            size = files.weight_bytes
            if files.config.get("model_type") != family or size > _SHARE * target.weight_bytes:
                continue
            if (best is None or size < best[0]) and _same_tokenizer(files, target, fingerprint):
                best = size, files
        except (AtlasdError, OSError) as error:
            log.debug("%s cannot draft: %s", name, error)
    return best[1] if best else None


def _same_tokenizer(files: ModelFiles, target: ModelFiles, fingerprint: str) -> bool:
    own, others = files.path / "tokenizer.json", target.path / "tokenizer.json"
    if not own.is_file():
        # A drafter distilled for its target may come without: it has the target's vocabulary.
        return (files.path / HEAD_FILE).is_file()
    if others.is_file() and own.read_bytes() == others.read_bytes():
        return True
    return Tokenizer.load(files).fingerprint == fingerprint


def head_tokens(folder: Path) -> Int32 | None:
    """The ids that a distilled drafter's head covers, or None for all."""
    try:
        content: Any = json.loads((folder / HEAD_FILE).read_text())
    except OSError:
        return None
    return np.array(content["token_ids"], np.int32)


def load_extras(decoder: Decoder, folder: Path) -> None:
    """What a drafter of ours was trained with and Qwen2's layout does not know, where its kernels
    can: states to carry, keys that know of the token before."""
    if not isinstance(decoder, CpuDecoder):
        return
    for name, give in ((CARRY_FILE, decoder.set_carry), (SMEAR_FILE, decoder.set_smear)):
        if (folder / name).is_file():
            give(load_file(folder / name)["weight"].astype(np.float32))


def chain_model(
    decoder: Decoder, head: Int32 | None, files: ModelFiles | None = None
) -> ChainModel:
    """Chains on a decoder: in one native call where it is our own. With the ``files`` it was
    loaded from, and at least two slots, it can be adapted."""
    if isinstance(decoder, CpuDecoder):
        if files is not None and decoder.slots > 1:
            return _AdaptableChain(decoder, head, files)
        return _NativeChain(decoder, head)
    return _RowChain(decoder, head)


def adaptable(drafter: Neural | None) -> Adaptable | None:
    """The drafter's model, if it can be adapted."""
    model = drafter.model if drafter is not None else None
    return model if isinstance(model, _AdaptableChain) else None


class _Reader:
    carries = False

    def __init__(self, decoder: Decoder, head: Int32 | None) -> None:
        self.decoder = decoder
        self.head = head
        self.slots = decoder.slots
        self.slot_tokens = decoder.slot_tokens

    def read(self, tokens: Int32, slot: int, position: int) -> None:
        """Rows without logits, in calls the decoder takes."""
        none = np.empty(0, np.int32)
        for start in range(0, len(tokens), 256):
            part = tokens[start : start + 256]
            positions = np.arange(position + start, position + start + len(part), dtype=np.int32)
            self.decoder.forward(part, np.full(len(part), slot, np.int32), positions, none)

    def memory_bytes(self) -> dict[str, int]:
        return self.decoder.memory_bytes()


class _NativeChain(_Reader):
    decoder: CpuDecoder

    def __init__(self, decoder: CpuDecoder, head: Int32 | None) -> None:
        super().__init__(decoder, head)
        self.carries = decoder.carries

    def chain(self, ask: Lookahead) -> Chain:
        return _drafted(self.decoder, ask, head_tokens=self.head)


class _AdaptableChain(_NativeChain):
    """A native drafter that can be corrected; its last slot is the trainer's."""

    def __init__(self, decoder: CpuDecoder, head: Int32 | None, files: ModelFiles) -> None:
        super().__init__(decoder, head)
        config = read_config(files)
        self.identity = files.identity
        self.hidden = decoder.spec.hidden_size
        self.vocab_size = decoder.vocab_size
        self.slots = decoder.slots - 1
        self._weights = open_weights(files, config)
        self._name = "model.embed_tokens.weight" if config.tied else "lm_head.weight"

    def states(self, tokens: Int32, position: int, chose: Float32 | None = None) -> Float32:
        return last_states(self.decoder, tokens, self.slots, position, chose)

    def rows(self, ids: Int32) -> Float32:
        rows = self._weights[self._name][ids]
        if rows.dtype == np.uint16:  # bfloat16
            return (rows.astype(np.uint32) << 16).view(np.float32)
        return rows.astype(np.float32)

    def corrected(self, weights: LowRank) -> Chains:
        return _CorrectedChain(Correction(self.decoder, weights))


class _CorrectedChain:
    def __init__(self, correction: Correction) -> None:
        self._correction = correction

    def chain(self, ask: Lookahead) -> Chain:
        return _drafted(self._correction.decoder, ask, correction=self._correction)


def _drafted(
    decoder: CpuDecoder,
    ask: Lookahead,
    head_tokens: Int32 | None = None,
    correction: Correction | None = None,
) -> Chain:
    drafted = draft_chain(
        decoder,
        ask.tokens,
        ask.slot,
        ask.position,
        ask.limit,
        chose=ask.chose,
        stop_probability=ask.least,
        temperature=ask.noise.temperature,
        seed=ask.noise.seed,
        choice=ask.noise.choice,
        output_index=ask.noise.output_index,
        head_tokens=head_tokens,
        correction=correction,
        before=ask.before,
    )
    return drafted.tokens.tolist(), drafted.probabilities.tolist()


class _RowChain(_Reader):
    """One row after another through ``Decoder.forward``."""

    def chain(self, ask: Lookahead) -> Chain:
        tokens: list[int] = []
        probabilities: list[float] = []
        reach = 1.0
        self.read(np.array(ask.tokens[:-1], np.int32), ask.slot, ask.position)
        last, position = ask.tokens[-1], ask.position + len(ask.tokens) - 1
        for index in range(ask.limit):
            logits: Float32 = self.decoder.forward(
                np.array([last], np.int32),
                np.array([ask.slot], np.int32),
                np.array([position + index], np.int32),
                np.zeros(1, np.int32),
            )[0]
            row = logits if self.head is None else _only(logits, self.head)
            last = choose(row, ask.noise, index)
            shifted = row - row.max()
            probability = float(np.exp(shifted[last]) / np.exp(shifted).sum())
            reach *= probability
            if reach < ask.least:
                break
            tokens.append(last)
            probabilities.append(probability)
        return tokens, probabilities


def _only(logits: Float32, head: Int32) -> Float32:
    row = np.full(len(logits), -np.inf, np.float32)
    row[head] = logits[head]
    return row
