"""Constraints made ready beside the step loop: compiling one may take longer than many steps."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from atlasd.engine.protocol import Submit
from atlasd.errors import AtlasdError, RequestError

if TYPE_CHECKING:
    import llguidance

    from atlasd.draft.constraint import Constraint
    from atlasd.models.locate import ModelFiles

KEPT = 32
"""Compiled constraints that are kept: clients send the same schema again and again."""


@dataclass(frozen=True)
class Compiled:
    """A request whose constraint is ready, or why it cannot be."""

    submit: Submit
    constraint: Constraint | None = None
    error: AtlasdError | None = None


class Compiler:
    """Compiles for one model, on a thread of its own; ``done`` is called there.

    llguidance and its view of the vocabulary are loaded with the first constraint.
    """

    def __init__(
        self, files: ModelFiles, vocab_size: int, done: Callable[[Compiled], None]
    ) -> None:
        self._files = files
        self._vocab_size = vocab_size
        self._done = done
        self._pool = ThreadPoolExecutor(1, "constraints")
        self._tokenizer: llguidance.LLTokenizer | None = None
        self._compiled: OrderedDict[str, Constraint] = OrderedDict()

    def compile(self, submit: Submit) -> None:
        """Returns at once."""
        self._pool.submit(self._compile, submit)

    def _compile(self, submit: Submit) -> None:
        try:
            self._done(Compiled(submit, self._constraint(submit.grammar)))
        except AtlasdError as error:
            self._done(Compiled(submit, error=error))
        except Exception as error:  # whatever a library says of a tokenizer or a grammar
            self._done(
                Compiled(submit, error=RequestError(f"The constraint cannot be used: {error}."))
            )

    def _constraint(self, grammar: str) -> Constraint:
        from atlasd.draft.constraint import Constraint

        if self._tokenizer is None:
            self._tokenizer = read_tokenizer(self._files, self._vocab_size)
        kept = self._compiled.get(grammar)
        if kept is None:
            kept = self._compiled[grammar] = Constraint(self._tokenizer, grammar)
            if len(self._compiled) > KEPT:
                self._compiled.popitem(last=False)
        self._compiled.move_to_end(grammar)
        return kept.copy()


def read_tokenizer(files: ModelFiles, vocab_size: int) -> llguidance.LLTokenizer:
    """A model's vocabulary as llguidance sees it: ``vocab_size`` is the decoder's."""
    import llguidance

    from atlasd.models.tokenizer import Tokenizer

    tokenizer = Tokenizer.load(files)
    return llguidance.LLTokenizer(
        tokenizer.serialized(), n_vocab=vocab_size, eos_token=list(tokenizer.eos_ids)
    )
