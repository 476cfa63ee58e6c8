"""Looks at what a person's Tab left behind: the saved file, and the daemon's database."""

from __future__ import annotations

import json
import sqlite3
import sys
import time
from pathlib import Path


def accepted(database: Path, file: Path) -> list[str]:
    """Texts accepted in the file, oldest first."""
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    try:
        rows = connection.execute(
            "SELECT text FROM completions WHERE fate = 'accepted' AND path LIKE ? ORDER BY rowid",
            [f"%{file.name}"],
        )
        return [text for (text,) in rows]
    finally:
        connection.close()


def main() -> None:
    typing = json.loads(Path(__file__).with_name("typing.json").read_text())
    database, file = Path(sys.argv[1]), Path(sys.argv[2]) / typing["file"]
    # The daemon writes a moment after the editor was told.
    for _ in range(50):
        if texts := accepted(database, file):
            break
        time.sleep(0.2)
    else:
        sys.exit("FAILED: the database has no accepted completion")
    if texts[-1] not in file.read_text():
        sys.exit(f"FAILED: {texts[-1]!r} was accepted but is not in the file:\n{file.read_text()}")
    print(f"accepted, saved and stored: {texts[-1]!r}")


if __name__ == "__main__":
    main()
