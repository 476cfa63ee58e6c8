"""What tests of prompts share: a repository that says what it is told to, a builder over it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from atlasd.completion.prompt import PromptBuilder
from atlasd.completion.remembering import RememberingTokenizer
from atlasd.completion.templates import template_for
from tests.unit.byte_tokenizer import ByteTokenizer

TOKENIZER = ByteTokenizer(words=["    ", "self", "return", "value", " = "])


def source(lines: int, name: str = "value") -> str:
    return "".join(f"    self.{name}_{n} = {name} * {n}\n" for n in range(lines))


def common(first: list[int], second: list[int]) -> int:
    """Length of the common beginning."""
    pairs = zip(first, second, strict=False)
    return next(
        (index for index, (a, b) in enumerate(pairs) if a != b), min(len(first), len(second))
    )


@dataclass
class Definition:
    name: str
    path: str
    line: int
    text: str


@dataclass
class Edit:
    path: str
    text: str
    at: float = 0.0


@dataclass
class Repository:
    root: Path = Path("/repo")
    name: str = "demo"
    trusted: bool = True
    texts: dict[str, str] = field(default_factory=dict)
    definitions: list[Definition] = field(default_factory=list)
    edits: list[Edit] = field(default_factory=list)
    alike: list[tuple[str, float]] = field(default_factory=list)

    @property
    def files(self) -> list[str]:
        return list(self.texts)

    def text(self, path: str) -> str | None:
        return self.texts.get(path)

    def defining(self, names, limit=8):
        wanted = list(names)
        return [each for each in self.definitions if each.name in wanted][:limit]

    def withholds(self, path):
        return False

    def recent(self, limit=8):
        return self.edits[:limit]

    def similar(self, identifiers, exclude=(), limit=4):
        return [each for each in self.alike if each[0] not in exclude][:limit]


@dataclass
class Workspace:
    repository: Repository

    def repository_of(self, path):
        return self.repository if str(path).startswith("/repo/") else None


def a_repository() -> Repository:
    helper = "def load_shapes(path):\n    return json.loads(path.read_text())\n"
    alike = "class Square:\n    def area(self):\n        return self.width * self.width\n"
    return Repository(
        texts={"io.py": helper, "square.py": alike, "old.py": source(200)},
        definitions=[Definition("load_shapes", "io.py", 0, helper)],
        edits=[Edit("old.py", source(200))],
        alike=[("square.py", 0.5)],
    )


def builder(repository: Repository, orders: tuple[str, ...], slot: int = 1200) -> PromptBuilder:
    tokenizer = RememberingTokenizer(TOKENIZER)
    return PromptBuilder(tokenizer, template_for(tokenizer, orders), Workspace(repository), slot)
