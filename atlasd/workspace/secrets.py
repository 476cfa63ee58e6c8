"""Finding secrets in text, so that they are masked before anything is stored, indexed or shown
to a model.

Three kinds of evidence: the fixed shapes of well-known credentials, literals assigned to names
like ``password`` or ``api_key``, and long random-looking tokens (Shannon entropy). Cheap tests of
the whole text come first, because nearly all files hold none.
"""

from __future__ import annotations

import itertools
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

MASK = "*"
"""Every character of a secret but its line ends becomes this, so positions stay what they were."""


@dataclass(frozen=True)
class Secret:
    kind: str
    start: int
    end: int


# kind, pattern; group 1, where there is one, is the secret, else all of the match. Those of
# _TOKENS are tried only around long runs of token characters with a digit among them.
_TOKENS: list[tuple[str, re.Pattern[str]]] = [
    (kind, re.compile(pattern))
    for kind, pattern in [
        ("aws key id", r"(?:AKIA|ASIA)[0-9A-Z]{16}\b"),
        ("github token", r"gh[pousr]_[A-Za-z0-9]{30,}"),
        ("github token", r"github_pat_\w{22,}"),
        ("gitlab token", r"glpat-[\w-]{20,}"),
        ("slack token", r"(?:xox[abeprs]|xapp)-[\w-]{11,}"),
        ("slack webhook", r"hooks\.slack\.com/services/([\w/]{20,})"),
        ("stripe key", r"[srp]k_(?:live|test)_\w{16,}"),
        ("google api key", r"AIza[\w-]{35}"),
        ("google oauth token", r"ya29\.[\w-]{20,}"),
        ("google client secret", r"GOCSPX-[\w-]{20,}"),
        ("api key", r"sk-[\w-]{20,}"),
        ("npm token", r"npm_[A-Za-z0-9]{36}"),
        ("pypi token", r"pypi-[\w-]{50,}"),
        ("hugging face token", r"hf_[A-Za-z0-9]{30,}"),
        ("json web token", r"eyJ[\w-]{8,2000}\.eyJ[\w-]{8,}\.[\w-]*"),
        ("sendgrid key", r"SG\.[\w-]{16,}\.[\w-]{16,}"),
        ("twilio key", r"SK[0-9a-f]{32}\b"),
        ("azure storage key", r"AccountKey=([\w+/=]{40,})"),
        ("digitalocean token", r"do[opr]_v1_[0-9a-f]{32,}"),
        ("databricks token", r"dapi[0-9a-f]{32}\b"),
        ("shopify token", r"shp(?:at|ca|pa|ss)_[0-9a-fA-F]{32}"),
        ("age key", r"AGE-SECRET-KEY-1[0-9A-Z]{50,}"),
        ("telegram token", r"\d{8,10}:(AA[\w-]{32,})"),
        ("authorization header", r"[Bb]earer ([\w.~+/=-]{16,})"),
    ]
]
_STARTS = re.compile(
    r"(?<![A-Za-z0-9])(?:A[KS]IA|gh[pousr]_|github_pat_|glpat-|xox|xapp-|hooks\.slack|[srp]k_|AIza|"
    r"ya29\.|GOCSPX-|sk-|npm_|pypi-|hf_|eyJ|SG\.|SK|AccountKey=|do[opr]_v1_|dapi|shp|"
    r"AGE-SECRET|\d{8,10}:AA|[Bb]earer )"
)
"""How the shapes start: one search for all of them."""
_BEFORE = 40
"""Characters before a run that belong to a shape (``AccountKey=``, ``hooks.slack.com/``)."""
_PRIVATE_KEY = re.compile(
    r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----[\s\S]*?"
    r"(?:-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----|\Z)"
)
_URL_PASSWORD = re.compile(r"://[^\s/:@\"'<>]{0,64}:([^\s/:@\"'<>{}$*]{3,})@")

_NAMES = ("password", "passwd", "passphrase", "pwd", "secret", "token", "credential", "key")
_PASSWORDS = ("pass", "pwd")
_KEY_KINDS = ("api", "access", "auth", "private", "encryption", "signing", "account")
_QUOTED = re.compile(
    r"[\w-]{0,64}+[\"']?\]?\s{0,8}(?::\s{0,8}\w{1,64}+\s{0,8}=|:=|=>|[:=])\s{0,8}[bru]?"
    r"([\"'`])(?P<value>[^\"'`\s]{6,})\1"
)
_BARE = re.compile(
    r"[ \t]*(?:export[ \t]+|-[ \t]+)?[\w.-]*[ \t]*[:=][ \t]*"
    r"(?P<value>[\w+/=.~@#%^&*!-]{8,})[ \t]*$",
    re.MULTILINE,
)
_PLACEHOLDER = re.compile(
    r"(?i)[<{$%*]|\.\.\.|^(?:x+|example|changeme|change_me|your|none|null|true|false|todo|test|"
    r"dummy|placeholder|redacted|secret|password|passwd|token|undefined)",
)
_WORDS = re.compile(r"^[A-Za-z]+(?:[ _.\-/:][A-Za-z]+)*$|^[a-z]+(?:[A-Z][a-z]+)*$")

_KEY = 256
"""Characters of a line before a name that may belong to what a value is assigned to. Looking
further back for each of many names on one line would never end."""

_RANDOM = 32
_TO_CLASSES = bytes(
    48
    if chr(byte).isdigit() and byte < 128
    else 97
    if (chr(byte).isalnum() and byte < 128) or byte in b"+/_-"
    else 32
    for byte in range(256)
)
_RUN = re.compile(rb"[a0]{16,}")
_TO_KINDS = bytes(
    ord("U") if 65 <= byte <= 90 else ord("l") if 97 <= byte <= 122 else kind
    for byte, kind in enumerate(_TO_CLASSES)
)


def mask(text: str) -> str:
    """The text with every secret masked; of the same length and with the same lines."""
    return _masked(text, find_secrets(text))


def mask_private_keys(text: str) -> str:
    """As ``mask``, but only what lies between the marks of private keys: however long that is."""
    return _masked(text, list(_private_keys(text)))


def _masked(text: str, found: list[Secret]) -> str:
    if not found:
        return text
    parts: list[str] = []
    at = 0
    for secret in found:
        parts.append(text[at : secret.start])
        parts.append(re.sub(r"[^\r\n]", MASK, text[secret.start : secret.end]))
        at = secret.end
    parts.append(text[at:])
    return "".join(parts)


def find_secrets(text: str) -> list[Secret]:
    """Secrets in the order of the text, without overlaps."""
    found = [*_with_marks(text), *_assigned(text)]
    for start, end in _runs(text):
        found.extend(_token_around(text, start, end))
    found.sort(key=lambda secret: (secret.start, -secret.end))
    apart: list[Secret] = []
    for secret in found:
        if not apart or secret.start >= apart[-1].end:
            apart.append(secret)
        elif secret.end > apart[-1].end:
            apart[-1] = Secret(apart[-1].kind, apart[-1].start, secret.end)
    return apart


def _runs(text: str) -> Iterator[tuple[int, int]]:
    """Long runs of token characters with a digit among them: nearly no text has any, and all
    generated credentials are in one."""
    # One byte per character, so that positions are the text's; others are no part of a token.
    classes = text.encode("latin-1", "replace").translate(_TO_CLASSES)
    for match in _RUN.finditer(classes):
        if classes.find(b"0", match.start(), match.end()) >= 0:
            yield match.span()


def _token_around(text: str, start: int, end: int) -> Iterator[Secret]:
    ends: dict[re.Pattern[str], int] = {}
    for place in _STARTS.finditer(text, max(0, start - _BEFORE), end):
        for kind, pattern in _TOKENS:
            if place.start() < ends.get(pattern, 0):
                continue  # in the middle of one of this kind
            if match := pattern.match(text, place.start()):
                ends[pattern] = match.end()
                yield Secret(kind, *match.span(1 if pattern.groups else 0))
    if end - start >= _RANDOM and looks_random(text[start:end]):
        yield Secret("random token", start, end)


def _places(text: str, literal: str) -> Iterator[int]:
    """Where a literal stands: substring search is far quicker than trying an expression."""
    at = text.find(literal)
    while at >= 0:
        yield at
        at = text.find(literal, at + len(literal))


def _private_keys(text: str) -> Iterator[Secret]:
    end = 0
    for at in _places(text, "-----BEGIN "):
        if at >= end and (match := _PRIVATE_KEY.match(text, at)):
            end = match.end()
            yield Secret("private key", at, end)


def _with_marks(text: str) -> Iterator[Secret]:
    yield from _private_keys(text)
    for at in _places(text, "://"):
        if match := _URL_PASSWORD.match(text, at):
            yield Secret("password in a url", *match.span(1))


def _assigned(text: str) -> Iterator[Secret]:
    lowered = text.lower()
    if len(lowered) != len(text):
        # Some letters are two when lowered; then ASCII alone is, so that positions stay right.
        lowered = re.sub("[A-Z]+", lambda match: match.group().lower(), text)
    for name in _NAMES:
        for at in _places(lowered, name):
            before = lowered[max(0, at - 12) : at].rstrip("_-")
            if name == "key" and not before.endswith(_KEY_KINDS):
                continue
            if found := _value_of(text, name, at):
                yield found


def _value_of(text: str, name: str, at: int) -> Secret | None:
    """The secret assigned to the name that was seen at a position."""
    password = name.startswith(_PASSWORDS)
    match = _QUOTED.match(text, at + len(name))
    quoted = match is not None
    if match is None:
        begin = text.rfind("\n", max(0, at - _KEY), at) + 1
        match = _BARE.match(text, begin) if begin or at <= _KEY else None
    if match is None or match.start("value") < at:
        return None
    value = match["value"]
    if _PLACEHOLDER.search(value) or value.startswith("/"):
        return None
    if quoted and password:
        # A password may be a plain word; words joined like an identifier name a field.
        secret = not (_WORDS.match(value) and ("_" in value or "." in value))
    else:
        secret = len(value) >= 8 and _mixed(value)
    return Secret(f"value of {name}", *match.span("value")) if secret else None


def _mixed(value: str) -> bool:
    """Letters with digits, as in generated keys, and no call, index or path."""
    return (
        any(c.isdigit() for c in value)
        and any(c.isalpha() for c in value)
        and entropy(value) >= 2.8
    )


def looks_random(token: str) -> bool:
    """Letters of both cases and digits, changing between them far more often than in words, at
    an entropy that words do not reach."""
    kinds = token.encode("latin-1", "replace").translate(_TO_KINDS)
    changes = sum(a != b for a, b in itertools.pairwise(kinds))
    return (
        changes >= 0.42 * len(token)
        and b"U" in kinds
        and b"l" in kinds
        and kinds.count(b"0") >= 2
        and token.count("/") <= 1 + len(token) // _RANDOM
        and token.count("_") + token.count("-") <= len(token) // 8
        and entropy(token) >= 4.0
    )


def entropy(text: str) -> float:
    """Shannon entropy in bits per character."""
    total = len(text)
    return -sum(n / total * math.log2(n / total) for n in Counter(text).values())
