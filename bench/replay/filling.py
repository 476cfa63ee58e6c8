"""Prompts of replay as the product would send them: the model's own marks around prefix and suffix,
or the prefix alone for a model that is asked to continue."""

from __future__ import annotations

from collections.abc import Callable

from atlasd.completion.families import declared_orders
from atlasd.completion.languages import language_of
from atlasd.completion.templates import Part, Prompt, Surroundings, template_for
from atlasd.models.locate import ModelFiles
from atlasd.models.tokenizer import Tokenizer

Fill = Callable[[list[int], list[int]], tuple[list[int], int]]
"""The prompt for the tokens before and behind a hole, and how many of its tokens end with those
before it (0: all)."""


def fill_for(files: ModelFiles, tokenizer: Tokenizer) -> Fill:
    """How this model is asked."""
    template = template_for(tokenizer, declared_orders(files.config))
    if not template.uses_suffix:
        return lambda prefix, suffix: (prefix, 0)
    empty = template.prompt(Surroundings("", "", language_of(None, "a.py"))).parts

    def fill(prefix: list[int], suffix: list[int]) -> tuple[list[int], int]:
        held = {"prefix": tuple(prefix), "suffix": tuple(suffix)}
        parts = [Part(part.name, part.tokens + held.get(part.name, ())) for part in empty]
        prompt = Prompt(tuple(parts), ())
        return prompt.tokens, prompt.prefix_end

    return fill
