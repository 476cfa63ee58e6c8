"""Docstring-to-function pairs in chat form, so that the chat endpoint answers with code."""

import ast
import random
from collections.abc import Iterable, Iterator
from typing import NamedTuple, Protocol

QUESTIONS = (
    "Write a Python function `{signature}`. {task}",
    "Write a Python function named {name}. {task}",
    "{task}\n\nImplement it in Python as `{signature}`.",
    "Complete this function:\n\n```python\ndef {signature}:\n    {quoted}\n```",
    "How do I write a function in Python that does this: {task}",
)


class Pair(NamedTuple):
    question: str
    answer: str


class HasText(Protocol):
    @property
    def text(self) -> str: ...


def functions(source: str) -> Iterator[tuple[str, str, str, str]]:
    """(name, signature, docstring's first paragraph, source without it) of short functions."""
    try:
        tree = ast.parse(source)
    except (SyntaxError, ValueError, RecursionError):
        return
    lines = source.split("\n")
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef) or node.decorator_list or len(node.body) < 2:
            continue
        task = ast.get_docstring(node)
        last, first = node.end_lineno or 0, node.body[0]
        if not task or node.name.startswith(("_", "test")) or last - node.lineno > 40:
            continue
        task = " ".join(task.split("\n\n")[0].split())
        if not 20 <= len(task) <= 300 or not task.isascii():
            continue
        head = lines[node.lineno - 1 : first.lineno - 1]
        body = lines[first.end_lineno or 0 : last]
        signature = f"{node.name}({ast.unparse(node.args)})"
        if len(signature) <= 120:
            yield node.name, signature, task, "\n".join([*head, *body])


def pairs(documents: Iterable[HasText], seed: int) -> Iterator[Pair]:
    rng = random.Random(seed)
    shuffled = list(documents)
    rng.shuffle(shuffled)
    for document in shuffled:
        for name, signature, task, code in functions(document.text):
            question = rng.choice(QUESTIONS).format(
                name=name, signature=signature, task=task, quoted=f'"""{task}"""'
            )
            yield Pair(question, f"```python\n{code}\n```")
