"""How many tokens are computed again when one more character is typed after a long prompt.

python -m bench.typing_along [--model NAME] [--tokens 1000]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from bench.report import table
from bench.served import serve

ROOT = Path(__file__).resolve().parents[1]


def _document(characters: int) -> tuple[str, str]:
    """Real code around a cursor in the middle of a line."""
    text = "".join(path.read_text() for path in sorted((ROOT / "atlasd" / "server").glob("*.py")))
    middle = text.index("return ", characters) + len("return ")
    return text[middle - characters : middle], text[middle : middle + characters // 4]


def measure(tokens: int, options: list[str]) -> str:
    rows: list[list[object]] = []
    with serve(*options) as served:
        prefix, suffix = _document(3 * tokens)
        typed = "value.items()"
        for count in range(len(typed) + 1):
            stats = served.infill(prefix + typed[:count], suffix, n_predict=8)["timings"]
            rows.append([count, stats["prompt_n"] + stats["cache_n"], stats["prompt_n"]])
        chunk = served.status()["model"]
    header = ["characters typed", "prompt tokens", "computed again"]
    title = f"Typing along (`python -m bench.typing_along`), {chunk['model']}, {chunk['backend']}"
    return table(title, header, rows)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tokens", type=int, default=1000)
    parser.add_argument("--model")
    chosen = parser.parse_args()
    print(measure(chosen.tokens, ["--model", chosen.model] if chosen.model else []))
