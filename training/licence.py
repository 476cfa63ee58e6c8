"""Is a file permissively licensed? Its package's own metadata decides, never a name."""

import fnmatch
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from email.parser import HeaderParser
from pathlib import Path

_PERMISSIVE = re.compile(
    r"(mit|mit-0|expat|x11|0?bsd([- ][0-4][- a-z]*)?|isc|zlib|psf[-\d.]*|python-2\S*"
    r"|apache([- ]?v?2\S*)?|unlicense|cc0\S*|public[- ]domain)(\s+license)?"
    r"(\s+with\s+llvm-exception)?"
)
_CLASSIFIERS = {
    "MIT License": "MIT",
    "MIT No Attribution License (MIT-0)": "MIT-0",
    "BSD License": "BSD",
    "Apache Software License": "Apache-2.0",
    "ISC License (ISCL)": "ISC",
    "Python Software Foundation License": "PSF-2.0",
    "The Unlicense (Unlicense)": "Unlicense",
    "zlib/libpng License": "Zlib",
    "Public Domain": "public-domain",
}
_COPYLEFT = re.compile(
    r"GNU (Lesser |Library |Affero )?General Public|\bA?L?GPL(v|-)?[23]"
    r"|Mozilla Public License|\bMPL-[12]",
    re.IGNORECASE,
)


def is_permissive(expression: str) -> bool:
    """True if an SPDX-like expression leaves at least one way of using the file permissively.

    >>> is_permissive("MIT OR GPL-3.0"), is_permissive("(MIT AND MPL-2.0)")
    (True, False)
    """
    text = re.sub(r"[()]", " ", expression.strip().lower().replace("/", " or "))
    return any(
        all(_PERMISSIVE.fullmatch(part.strip()) for part in re.split(r"\s+and\s+|,|&", choice))
        for choice in re.split(r"\s+or\s+|\|", text)
    )


def has_copyleft_header(text: str) -> bool:
    """A file's own header outranks its package's metadata."""
    return _COPYLEFT.search(text[:4000]) is not None


@dataclass(frozen=True)
class Licence:
    """What a package's metadata says; `allows` answers for one path inside the unpacked package."""

    summary: str
    version: str
    allows: Callable[[str], bool]


def _whole(summary: str, version: str) -> Licence:
    good = is_permissive(summary)
    return Licence(summary, version, lambda _path: good)


def of_wheel(folder: Path) -> Licence:
    found = next(iter(sorted(folder.glob("*.dist-info/METADATA"))), None)
    if found is None:
        return _whole("unknown", "")
    fields = HeaderParser().parsestr(found.read_text(errors="replace"))
    version = fields.get("Version", "")
    marks = [c.rsplit(" :: ", 1)[1] for c in fields.get_all("Classifier", []) if "License ::" in c]
    marks = [m for m in marks if m != "OSI Approved"]
    if expression := fields.get("License-Expression"):
        return _whole(expression, version)
    if marks:  # several classifiers may mean "and" as well as "or": all have to be permissive
        return _whole(" AND ".join(_CLASSIFIERS.get(m, m) for m in marks), version)
    return _whole((fields.get("License") or "unknown").split("\n")[0][:60], version)


def of_npm(folder: Path) -> Licence:
    meta = json.loads((folder / "package.json").read_text(errors="replace"))
    declared = meta.get("license", "unknown")
    if isinstance(declared, dict):
        declared = declared.get("type", "unknown")
    return _whole(str(declared), str(meta.get("version", "")))


def parse_debian(text: str) -> list[tuple[str, str]]:
    """(path pattern, licence) of a machine-readable debian/copyright; later ones win."""
    rules: list[tuple[str, str]] = []
    for stanza in re.split(r"\n\s*\n", text):
        fields = dict(
            re.findall(r"^([A-Za-z-]+):[ \t]*((?:.*)(?:\n[ \t]+.*)*)", stanza, re.MULTILINE)
        )
        if "Files" in fields and "License" in fields:
            licence = fields["License"].split("\n")[0].strip()
            rules += [(pattern, licence) for pattern in fields["Files"].replace(",", " ").split()]
    return rules


def of_debian(copyright_file: Path, version: str) -> Licence:
    if not copyright_file.exists():
        return _whole("unknown", version)
    rules = parse_debian(copyright_file.read_text(errors="replace"))

    def allows(path: str) -> bool:
        hits = [
            licence
            for pattern, licence in rules
            if fnmatch.fnmatchcase(path, pattern.removeprefix("./"))
        ]
        return bool(hits) and is_permissive(hits[-1])

    summary = next((licence for pattern, licence in rules if pattern == "*"), "unknown")
    return Licence(summary, version, allows)
