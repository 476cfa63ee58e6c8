"""Names in source text: what stands near a cursor, and what a file imports."""

from __future__ import annotations

import re

from atlasd.completion.languages import Language

_IDENTIFIER = re.compile(r"[A-Za-z_$][\w$]{2,}")


def identifiers(text: str, language: Language) -> list[str]:
    """Names in a text, nearest to its end first, each once; keywords are left out."""
    found = [word for word in _IDENTIFIER.findall(text) if word not in language.keywords]
    return list(dict.fromkeys(reversed(found)))


def imported(text: str, language: Language) -> tuple[list[str], list[str]]:
    """What a file's import statements name: (modules, names), in the order of the text."""
    modules: list[str] = []
    names: list[str] = []
    for pattern in language.imports:
        for match in pattern.finditer(text):
            for group in match.groups():
                for item in re.split(r"[,{}\s]+", group or ""):
                    word = item.strip()
                    if not word or word in ("as", "type", "*"):
                        continue
                    (names if _IDENTIFIER.fullmatch(word) else modules).append(word)
                    if "." in word or "/" in word or ":" in word:
                        names.append(re.split(r"[./:]+", word.rstrip("./:"))[-1])
    return list(dict.fromkeys(modules)), list(dict.fromkeys(name for name in names if name))
