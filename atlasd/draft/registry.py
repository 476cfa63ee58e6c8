"""Everything that drafts, behind one object: what the engine's worker builds and feeds."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from importlib.metadata import entry_points
from pathlib import Path
from typing import Protocol

import numpy as np
from atlasd_kernels.cpu.text import text_library

from atlasd.draft import positions_files
from atlasd.draft.confidence import Confidence
from atlasd.draft.controller import Controller
from atlasd.draft.cut import Costs
from atlasd.draft.drafter import Drafter, Int32
from atlasd.draft.grammar import Grammar
from atlasd.draft.learned import LearnedState, pack, unpack, unpack_shared
from atlasd.draft.mixture import Mixture
from atlasd.draft.native import NativeMixture
from atlasd.draft.neural import ADAPTER, Neural
from atlasd.draft.positions_index import PIECE, PositionIndex
from atlasd.draft.recycle import Recycle

log = logging.getLogger(__name__)

GROUP = "atlasd.drafters"
INDEX_FILE = "positions.index"
NEURAL = Neural.name

_FADED = 15.0
"""Evidence that a mass keeps when the target has changed."""


class Learning(Protocol):
    """What learns in idle time (``learn.learner.Learner``), as drafting sees it."""

    def wish(
        self, repository: str, name: str, kind: str, tokens: Int32, modified: float = 0.0
    ) -> None: ...
    def unwish(self, repository: str, name: str) -> None: ...
    def idle(self, milliseconds: float) -> bool: ...
    def learned(self) -> list[tuple[str, str | None, bytes]]: ...
    def restore(self, repository: str | None, payload: bytes) -> None: ...
    def forget(self, repository: str | None) -> None: ...
    def target_changed(self, identity: str | None = None) -> None: ...
    def save(self) -> None: ...
    @property
    def nbytes(self) -> int: ...


class Drafting:
    """The drafters, their confidence and the controller over them.

    The engine forwards segments and learned state here and calls ``controller`` in its step loop.
    Everything runs on the step loop's thread.
    """

    def __init__(
        self,
        *,
        vocab_size: int,
        fingerprint: str,
        costs: Costs,
        folder: Path | None = None,
        extra: Sequence[Drafter] = (),
        neural: Neural | None = None,
        index_bytes: int = 512 << 20,
        line_ends: Sequence[int] = (),
    ) -> None:
        """``fingerprint`` is the tokenizer's; ``folder`` is where large arrays are kept between
        runs (None: nowhere); ``extra`` are drafters beside the built-in ones; ``neural`` is the
        static one (``static.load_static``); ``index_bytes`` bounds the position index;
        ``line_ends`` are the tokens that end a line (empty: not known)."""
        self.vocab_size = vocab_size
        self.fingerprint = fingerprint
        self.folder = folder
        self.confidence = Confidence()
        self.index = PositionIndex(index_bytes)
        self.recycle = Recycle(vocab_size, line_ends)
        if folder is not None:
            positions_files.load(self.index, folder / INDEX_FILE, fingerprint)
        self.index.ask_for_memory()
        library = text_library()
        self.text = (
            Mixture(self.index, self.recycle)
            if library is None
            else NativeMixture(self.index, self.recycle, library)
        )
        self.drafters: list[Drafter] = [self.text, *extra]
        if neural is not None:
            self.drafters.append(neural)
        self.neural = neural
        self.learning: Learning | None = None
        self._grammar = False
        self.controller = Controller(self.drafters, self.confidence, costs)

    def add_segment(
        self,
        segment: str,
        repository: str,
        kind: str,
        tokens: Int32,
        language: str | None = None,
        modified: float = 0.0,
    ) -> None:
        """Draft from this text (``kind``: file or accepted); replaces the segment of that name.
        ``modified`` is when it last changed, in seconds since the epoch, if that is known."""
        for _ in self.adding(segment, repository, kind, tokens, language, modified):
            pass

    def adding(
        self,
        segment: str,
        repository: str,
        kind: str,
        tokens: Int32,
        language: str | None = None,
        modified: float = 0.0,
    ) -> Iterator[None]:
        """As ``add_segment``, in pieces of about two milliseconds between which requests are
        served: each step of the iterator is one."""
        if len(tokens) and not 0 <= tokens.min() <= tokens.max() < self.vocab_size:
            log.warning("%s has tokens that the model does not have: not drafted from", segment)
            return
        known = (repository, segment) in self.index.segments
        yield from self.index.put_in_pieces(segment, repository, kind, tokens, language)
        if not known:
            for begin in range(0, len(tokens), PIECE // 2):
                if begin:
                    yield
                self.recycle.add(tokens[max(0, begin - 2) : begin + PIECE // 2])
        if self.learning is not None:
            self.learning.wish(repository, segment, kind, tokens, modified)

    def learn_with(self, learning: Learning, listener: Drafter) -> None:
        """Have this learn in idle time; ``listener`` is told of streams like a drafter."""
        self.learning = learning
        self.drafters.append(listener)
        self.controller.add(listener)

    def promoted(self) -> None:
        """An adapter's first version is about to be used: its confidence begins as that of the
        drafter it corrects."""
        states = self.confidence.states()
        if ADAPTER not in states and NEURAL in states:
            self.confidence.load(ADAPTER, states[NEURAL])

    def expect_constraints(self) -> None:
        """From now on streams may be held to a constraint: what it forces is drafted, and all
        drafts are cut to what it allows. Few engines ever need it, so it is not there before."""
        if not self._grammar:
            self._grammar = True
            grammar = Grammar()
            self.drafters.append(grammar)
            self.controller.add(grammar)
            self.controller.trim_with(grammar.trim)

    def drop_segment(self, segment: str, repository: str) -> None:
        """Never draft from this segment again."""
        self.index.drop(segment, repository)
        if self.learning is not None:
            self.learning.unwish(repository, segment)

    def drop_repository(self, repository: str | None) -> None:
        """Forget all that was learned from a repository (None: everything)."""
        self.index.drop_repository(repository)
        self.text.forget(repository)
        self.confidence.forget(repository)
        if self.learning is not None:
            self.learning.forget(repository)

    def target_changed(self, identity: str | None = None) -> None:
        """The target's weights were replaced: what it chose before counts less from now on.
        ``identity`` is that of the new ones, where they have one to be known by later."""
        self.recycle.fade()
        masses, seen = self.text.masses_state()
        self.text.load_masses(list(masses), [min(count, _FADED) for count in seen])
        states = self.confidence.states()
        if isinstance(self.text, NativeMixture):
            states[self.text.name] = self.text.state()
        for name, state in states.items():
            state.information *= 0.25
            state.bias[1] *= 0.25
            state.offsets = {key: (value, 0.5 * i) for key, (value, i) in state.offsets.items()}
            if name == self.text.name and isinstance(self.text, NativeMixture):
                self.text.load(state)
            else:
                self.confidence.load(name, state)
        if self.learning is not None:
            self.learning.target_changed(identity)

    def learned(self) -> list[tuple[str, str | None, bytes]]:
        """(kind, repository, payload) for the store; see ``engine.protocol.Learned``."""
        masses, seen = self.text.masses_state()
        sources = self.confidence.states()
        if isinstance(self.text, NativeMixture):
            sources[self.text.name] = self.text.state()
        state = LearnedState(np.array(masses), np.array(seen), sources)
        learned: list[tuple[str, str | None, bytes]] = [
            ("confidence", repository, payload)
            for repository, payload in pack(state, self.fingerprint).items()
        ]
        return learned + (self.learning.learned() if self.learning is not None else [])

    def restore(self, kind: str, repository: str | None, payload: bytes) -> None:
        """Take back what ``learned`` gave in an earlier run; what does not fit is ignored."""
        if kind == ADAPTER and self.learning is not None:
            self.learning.restore(repository, payload)
        content = unpack(payload, self.fingerprint) if kind == "confidence" else None
        if content is None:
            return
        try:
            if repository is None:
                self._restore_shared(unpack_shared(content))
                return
            for name, learned in content["offsets"].items():
                self._load_offset(name, repository, (float(learned[0]), float(learned[1])))
        except (KeyError, TypeError, ValueError, IndexError):
            log.warning("learned state was damaged and is ignored")

    def _restore_shared(self, state: LearnedState) -> None:
        self.text.load_masses(state.masses.tolist(), state.seen.tolist())
        for name, source in state.sources.items():
            if name == self.text.name and isinstance(self.text, NativeMixture):
                self.text.load(source)
            else:
                self.confidence.load(name, source)

    def _load_offset(self, name: str, repository: str, learned: tuple[float, float]) -> None:
        if name == self.text.name and isinstance(self.text, NativeMixture):
            self.text.load_offset("repository", repository, learned)
        else:
            self.confidence.load_offset(name, "repository", repository, learned)

    def save(self) -> None:
        """Write the large arrays (position index, adapters) to the folder."""
        self.text.positions.finish()
        if self.learning is not None:
            self.learning.save()
        if self.folder is not None:
            positions_files.save(self.index, self.folder / INDEX_FILE, self.fingerprint)

    def idle(self, milliseconds: float) -> bool:
        """Tidy up and learn for about this long; True if more is left. The engine calls it when no
        stream is decoding."""
        if self.text.positions.finish() or self.index.sweep():
            return True
        return self.learning is not None and self.learning.idle(milliseconds)

    def memory_bytes(self) -> dict[str, int]:
        """Bytes held, by drafter."""
        held = {"positions": self.index.bytes_used(), "recycle": self.recycle.nbytes}
        if self.neural is not None:
            held["neural"] = sum(self.neural.model.memory_bytes().values())
        if self.learning is not None:
            held["adapter"] = self.learning.nbytes
        return held

    def sources(self) -> dict[str, dict[str, float]]:
        """By drafter: tokens drafted, tokens accepted."""
        return {
            name: {
                "drafted": tally.drafted,
                "accepted": tally.accepted,
            }
            for name, tally in self.controller.tallies.items()
        }


def installed_drafters() -> list[Drafter]:
    """Drafters of other distributions: each entry point of the group is called without arguments.

    One that fails to load is left out with a warning, so that it cannot stop the engine.
    """
    drafters: list[Drafter] = []
    for point in entry_points(group=GROUP):
        try:
            drafters.append(point.load()())
        except Exception as error:
            log.warning("drafter %s was left out: %s", point.name, error)
    return drafters


def as_tokens(raw: bytes) -> Int32:
    """Token ids from the wire format (little-endian int32)."""
    return np.frombuffer(raw, "<i4").astype(np.int32, copy=False)
