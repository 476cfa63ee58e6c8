"""What models do wrong, language by language, and what is shown for it."""

from __future__ import annotations

import random
import tomllib
from pathlib import Path
from typing import Any

import pytest

from atlasd.completion.languages import language_of
from atlasd.completion.trim import Place, Watch, trim

DATA = Path(__file__).parent / "data"
CURSOR = "█"


def cases() -> list[Any]:
    found = []
    for file in sorted(DATA.glob("trim_*.toml")):
        table = tomllib.loads(file.read_text(encoding="utf-8"))
        for case in table["case"]:
            case.setdefault("language", table["language"])
            found.append(pytest.param(case, id=f"{file.stem[5:]}: {case['name']}"))
    return found


CASES = cases()


def place_of(case: dict[str, Any]) -> Place:
    prefix, suffix = case["file"].split(CURSOR)
    return Place(
        prefix,
        suffix + case.get("repeat_below", "") * 150,
        language_of(case["language"], None),
        invoked=case.get("invoked", False),
    )


@pytest.mark.parametrize("case", CASES)
def test_what_is_shown(case: dict[str, Any]) -> None:
    shown = trim(place_of(case), case["raw"], cut_off=case.get("cut_off", False))
    assert shown.text == case["text"]
    assert shown.replace_right == case.get("replace", 0)
    assert list(shown.rules) == case["rules"]


@pytest.mark.parametrize("case", CASES)
def test_stopping_early_shows_the_same_however_the_text_arrives(case: dict[str, Any]) -> None:
    place = place_of(case)
    whole = trim(place, case["raw"], cut_off=case.get("cut_off", False))
    chance = random.Random(case["name"])
    for longest in (1, 3, 9, 40):
        watch, arrived, rest = Watch(place), "", case["raw"]
        while rest:
            chunk = rest[: chance.randint(1, longest)]
            arrived, rest = arrived + chunk, rest[len(chunk) :]
            if watch.feed(chunk):
                break
        stopped = trim(place, arrived, cut_off=not rest and case.get("cut_off", False))
        assert (stopped.text, stopped.replace_right) == (whole.text, whole.replace_right)


def test_there_are_enough_cases_of_every_language() -> None:
    counts = {
        file.stem: len(tomllib.loads(file.read_text(encoding="utf-8"))["case"])
        for file in DATA.glob("trim_*.toml")
    }
    assert len(counts) == 6
    assert min(counts.values()) >= 25
    assert sum(counts.values()) >= 150
