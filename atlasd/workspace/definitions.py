"""Where names are defined, by one light regular expression per language, and which identifiers a
text uses. A parser would know more; this knows enough to point at the right lines, in any file,
also one that does not parse at the moment."""

from __future__ import annotations

import re
import zlib
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

Hashes = npt.NDArray[np.uint32]
Number = TypeVar("Number", np.uint32, np.int32)

_LINES = 12
_CHARACTERS = 800

_CLASSES = r"class|interface|enum|record|struct|object|trait|protocol|extension|namespace"
_MODIFIERS = (
    r"public|private|protected|internal|static|final|abstract|override|virtual|async|sealed|"
    r"synchronized|readonly|open|suspend|inline|data|export|default|declare|const|unsafe|partial"
)
_KEYWORDS = """
    if else for while switch catch return with do try elif match case new sizeof typeof await yield
    throw function constructor super and or not in is import from using
"""
_NO_NAMES = frozenset(_KEYWORDS.split())

_PYTHON = (
    r"^[ \t]*(?:async[ \t]+)?(?:def|class)[ \t]+(\w+)|^([A-Za-z_]\w*)[ \t]*(?::[^=\n]+)?=(?!=)"
)
_TYPESCRIPT = (
    rf"^[ \t]*(?:(?:{_MODIFIERS})[ \t]+)*"
    rf"(?:function(?:[ \t]*\*[ \t]*|[ \t]++)|(?:{_CLASSES}|type|module)[ \t]+)([\w$]+)"
    r"|^(?:export[ \t]+)?(?:const|let|var)[ \t]+([\w$]+)"
    rf"|^[ \t]+(?:(?:{_MODIFIERS}|get|set)[ \t]+)*\*?([\w$]+)[ \t]*(?:<[^>\n]*>)?\([^\n]*\{{[ \t]*$"
)
_RUST = (
    r"^[ \t]*(?:pub(?:\([^)\n]*\))?[ \t]+)?"
    r"(?:(?:default|const|async|unsafe|extern(?:[ \t]+\"\w*\")?)"
    r"[ \t]+)*(?:fn|struct|enum|trait|type|mod|union|static(?:[ \t]+mut)?|const|macro_rules!)"
    r"[ \t]+(\w+)"
)
_GO = (
    r"^func[ \t]+(?:\([^)\n]*\)[ \t]*)?(\w+)|^(?:type|var|const)[ \t]+(\w+)"
    r"|^\t(\w+)[ \t]+(?:struct|interface)[ \t]*\{"
)
_C = (
    r"^#[ \t]*define[ \t]+(\w+)"
    r"|^[ \t]*(?:typedef[ \t]+)?(?:struct|union|enum(?:[ \t]+class)?|class|namespace)[ \t]+"
    r"(\w++)(?=[^;(\n]*$|[^;(\n]*\{)"
    r"|^[A-Za-z_][\w \t*&:<>,]*[ \t*&:](~?\w+)[ \t]*\("
    r"|^\}[ \t]*(\w+)[ \t]*;"
)
_LUA = (
    r"^[ \t]*(?:local[ \t]+)?function[ \t]+(?:[\w.]+[.:])?(\w+)"
    r"|^[ \t]*(?:local[ \t]+)?(?:[\w.]+\.)?(\w+)[ \t]*=[ \t]*function\b"
    r"|^(?:local[ \t]+)?(\w+)[ \t]*=[ \t]*\{"
)
_OTHER = (
    rf"^[ \t]*(?:(?:{_MODIFIERS})[ \t]+)*(?:{_CLASSES}|module|defmodule|message|service|mixin|type)"
    r"[ \t]+(\w+)"
    rf"|^[ \t]*(?:(?:{_MODIFIERS}|pub)[ \t]+)*(?:fun|func|def|defp|function|sub|proc|fn|let|rpc)"
    r"[ \t]+(?:self\.|\w+\.)?(\w+)"
    rf"|^[ \t]*(?:(?:{_MODIFIERS})[ \t]+){{1,8}}[\w<>\[\], \t?.]+[ \t](\w+)[ \t]*\("
    r"|^(?:function[ \t]+)?([\w-]+)[ \t]*\(\)[ \t]*\{"
)
_BY_LANGUAGE = {
    language: re.compile(pattern, re.MULTILINE)
    for pattern, languages in [
        (_PYTHON, "python starlark"),
        (_TYPESCRIPT, "typescript typescriptreact javascript javascriptreact vue svelte"),
        (_RUST, "rust"),
        (_GO, "go"),
        (_C, "c cpp cuda-cpp objective-c glsl"),
        (_LUA, "lua"),
        (
            _OTHER,
            "java kotlin swift ruby php csharp scala shellscript perl julia elixir dart proto "
            "zig nim groovy ocaml haskell solidity wgsl powershell r",
        ),
    ]
    for language in languages.split()
}
_IDENTIFIER = re.compile(r"[A-Za-z_]\w{2,}")


@dataclass(frozen=True)
class Definition:
    """Where a name is defined. ``path`` is relative to the repository, ``line`` counts from 0."""

    name: str
    path: str
    line: int
    text: str
    """The definition's first lines: signature, documentation, the start of its body."""


def defined_names(text: str, language: str | None) -> list[tuple[str, int]]:
    """Names a text defines, each with the offset of its line."""
    pattern = _BY_LANGUAGE.get(language or "")
    if pattern is None:
        return []
    found = ((match[match.lastindex or 0], match.start()) for match in pattern.finditer(text))
    return [(name, start) for name, start in found if name not in _NO_NAMES]


def definition(text: str, path: str, name: str, start: int) -> Definition:
    """What stands at the offset where ``defined_names`` found a name."""
    return Definition(name, path, text.count("\n", 0, start), _head(text, start))


def _head(text: str, start: int) -> str:
    """The lines of a definition from its first on, until its indentation ends."""
    lines = text[start : start + 4 * _CHARACTERS].split("\n")[: _LINES + 1]
    own = _indent(lines[0])
    end = len(lines)
    for index, line in enumerate(lines[1:], 1):
        if line.strip() and _indent(line) <= own:
            # A closing bracket belongs to the definition; the next statement does not.
            end = index + (line.strip()[0] in ")}]" or line.strip() == "end")
            if line.strip()[0] != ")" or end > _LINES:
                break
    head = "\n".join(lines[: min(end, _LINES)]).rstrip()
    return head[:_CHARACTERS]


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip(" \t"))


def identifiers(text: str) -> set[str]:
    return set(_IDENTIFIER.findall(text))


def hashes_of(names: Iterable[str]) -> Hashes:
    """Sorted distinct 32-bit hashes, the same in every run."""
    # Encoded together, for there are thousands in a file; a name has no line end in it.
    joined = "\n".join(names).encode("utf-8", "replace")
    values = map(zlib.crc32, joined.split(b"\n")) if joined else ()
    return distinct(np.fromiter(values, np.uint32))


def distinct(values: npt.NDArray[Number]) -> npt.NDArray[Number]:
    """What ``np.unique`` gives; its first call imports masked arrays, for fifteen milliseconds."""
    ordered = np.sort(values)
    first = np.ones(len(ordered), dtype=bool)
    first[1:] = ordered[1:] != ordered[:-1]
    return ordered[first]
