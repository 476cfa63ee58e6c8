"""From a request to a prompt: context gathered, cut to the token budget, put into the template."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from atlasd.completion.budget import Budget
from atlasd.completion.candidates import Spot
from atlasd.completion.context import Context
from atlasd.completion.languages import Language, language_of
from atlasd.completion.ports import Repository, TextTokenizer, Workspace
from atlasd.completion.request import CompletionRequest, Piece
from atlasd.completion.templates import Prompt, Surroundings, Template
from atlasd.completion.window import prefix_window, suffix_window
from atlasd.workspace.nameless import holds_settings_alone
from atlasd.workspace.never import never_directory, never_file, secret_path

LEAST_TOKENS = 64
OVERHEAD = 32
"""Tokens that templates and file names may add."""
SUFFIX_SHARE = 0.25
CONTEXT_SHARE = 0.4
CHARACTERS_PER_TOKEN = 3.0


@dataclass(frozen=True)
class Built:
    """A prompt and what it was built from."""

    prompt: Prompt
    language: Language
    repository: str | None
    """The root of the open repository, or whatever the client calls its repository."""
    trusted: bool
    """Whether the request may be learned from and stored: not if its repository is open and not
    trusted, whatever the client says (those of APIs say nothing), nor if its file is ignored or
    one that is never read."""


class PromptBuilder:
    """Builds prompts for one model. ``slot_tokens`` bounds prompt and answer together."""

    def __init__(
        self,
        tokenizer: TextTokenizer,
        template: Template,
        workspace: Workspace | None,
        slot_tokens: int,
    ) -> None:
        self.template = template
        self.budget = Budget()
        self._tokenizer = tokenizer
        self._workspace = workspace
        self._slot_tokens = slot_tokens
        self._context = Context()

    def build(self, request: CompletionRequest) -> Built:
        """Everything in the order that keeps most of it cached while somebody types."""
        language = language_of(request.language, request.path)
        repository, path = self._locate(request)
        budget = self._budget(request.max_tokens)
        trusted = _trusted(request, repository)
        spot = None
        if trusted and request.gather and repository is not None and path is not None:
            spot = Spot(repository, path, request.prefix, request.suffix, language)
        pieces = self._pieces(request.pieces, spot, budget)
        pieces, spent = self._fitting(pieces, budget // 2)
        suffix = self._suffix(request.suffix, int(budget * SUFFIX_SHARE))
        spent += len(self._tokenizer.encode(suffix))
        prefix = prefix_window(self._tokenizer, request.prefix, max(budget - spent, budget // 4))
        around = Surroundings(
            prefix=prefix,
            suffix=suffix,
            language=language,
            path=path,
            repository=repository.name if repository else None,
            pieces=pieces,
        )
        root = str(repository.root) if repository else _real(request.repository)
        trusted = trusted and not _withheld(request, repository, path)
        return Built(self.template.prompt(around), language, root, trusted)

    def keeps(self, request: CompletionRequest) -> bool:
        """Whether anything may be kept of what is asked about the request's file."""
        repository, path = self._locate(request)
        return _trusted(request, repository) and not _withheld(request, repository, path)

    def clear(self) -> None:
        self._context.clear()

    def _budget(self, answer: int) -> int:
        # An answer "as long as fits" must not leave the prompt without room.
        room = self._slot_tokens - min(answer, self._slot_tokens // 2) - OVERHEAD
        return max(LEAST_TOKENS, min(room, self.budget.tokens))

    def _locate(self, request: CompletionRequest) -> tuple[Repository | None, str | None]:
        """The open repository of a document, and the path to show: relative to it, or the name."""
        if request.path is None:
            return None, None
        path = PurePosixPath(request.path)
        if not path.is_absolute() and request.repository:
            path = PurePosixPath(request.repository) / path
        repository = None
        if self._workspace is not None and path.is_absolute():
            repository = self._workspace.repository_of(str(path))
        root = str(repository.root) if repository else request.repository
        if repository and not path.is_relative_to(repository.root):
            # The editor's way to the folder leads over a symlink.
            path = PurePosixPath(Path(path).parent.resolve() / path.name)
        if root and path.is_relative_to(root):
            return repository, str(path.relative_to(root))
        return repository, path.name if path.is_absolute() else str(path)

    def _pieces(
        self, given: tuple[Piece, ...], spot: Spot | None, budget: int
    ) -> tuple[Piece, ...]:
        """What the client brings, then what its repository has for the spot."""
        characters = int(budget * CONTEXT_SHARE * CHARACTERS_PER_TOKEN)
        brought = []
        for piece in given:
            if _secret(piece):
                continue
            if (size := len(piece.text) + len(piece.path)) <= characters:
                brought.append(piece)
                characters -= size
        found = self._context.gather(spot, characters) if spot else ()
        known = {piece.text.strip() for piece in brought}
        return (*brought, *(piece for piece in found if piece.text.strip() not in known))

    def _fitting(self, pieces: tuple[Piece, ...], most: int) -> tuple[tuple[Piece, ...], int]:
        """The first pieces that take at most ``most`` tokens, and how many they take: characters
        were only an estimate, and some texts have far fewer of them per token."""
        spent = 0
        for index, piece in enumerate(pieces):
            length = self._length(piece)
            if spent + length > most:
                return pieces[:index], spent
            spent += length
        return pieces, spent

    def _suffix(self, suffix: str, budget: int) -> str:
        return suffix_window(self._tokenizer, suffix, budget) if self.template.uses_suffix else ""

    def _length(self, piece: Piece) -> int:
        return len(self._tokenizer.encode(f"{piece.path}\n{piece.text}\n")) + 1


def _real(root: str | None) -> str | None:
    """A root by its real path, by which it is purged; the client may know it by a symlink."""
    return os.path.realpath(root) if root and os.path.isabs(root) else root


def _trusted(request: CompletionRequest, repository: Repository | None) -> bool:
    return request.trusted and (repository is None or repository.trusted)


def _withheld(request: CompletionRequest, repository: Repository | None, path: str | None) -> bool:
    """Whether nothing may be kept of a file, though its editor asks for suggestions in it."""
    if request.path is None:
        return holds_settings_alone(request.prefix, request.suffix)
    if repository is not None and path is not None:
        return repository.withholds(path)
    # What the repository lies in is nobody's choice of what to keep.
    inside = path if request.repository and path else request.path
    above, _, name = inside.rpartition("/")
    return never_file(name) or any(never_directory(part, ()) for part in above.split("/"))


def _secret(piece: Piece) -> bool:
    """Whether context that a client brings is of a file with secrets."""
    return secret_path(piece.path) if piece.path else holds_settings_alone(piece.text, "")
