"""Completions and their fate, against a plain model of both."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sqlite_utils.db import Database

from atlasd.store import completions
from atlasd.store.completions import FATES
from atlasd.store.database import Store
from atlasd.store.migrations import migrations
from atlasd.store.rows import LearnedRow, StoredCompletion

TEXT = "return first + second"


def completion(id: str = "a", text: str = TEXT, **values: Any) -> StoredCompletion:
    return replace(StoredCompletion(id, text, "/code/app", "app/main.py", "python"), **values)


async def test_an_accepted_completion_is_found_again(store: Store) -> None:
    await store.add_completion(completion())
    assert await store.set_fate("a", "shown") == ""
    assert await store.accepted("/code/app") == []
    assert await store.set_fate("a", "accepted") == TEXT
    [accepted] = await store.accepted("/code/app")
    assert (accepted.text, accepted.path, accepted.language) == (TEXT, "app/main.py", "python")
    assert accepted.repository == "/code/app"
    assert await store.fates() == {"accepted": 1}


async def test_word_after_word_the_accepted_text_grows(store: Store) -> None:
    await store.add_completion(completion())
    assert await store.set_fate("a", "accepted_word", 6) == "return"
    assert await store.set_fate("a", "accepted_word", 12) == "return first"
    assert await store.set_fate("a", "accepted_word", 6) == "return first"  # late, out of order
    assert await store.set_fate("a", "dismissed") == "return first"
    assert await store.fates() == {"accepted_word": 1}
    assert [a.text for a in await store.accepted("/code/app")] == ["return first"]
    assert await store.set_fate("a", "accepted_line", 400) == TEXT
    assert await store.fates() == {"accepted": 1}


async def test_lengths_are_code_points(store: Store) -> None:
    await store.add_completion(completion(text="é🎉x"))
    assert await store.set_fate("a", "accepted_word", 2) == "é🎉"
    assert [a.text for a in await store.accepted(None)] == ["é🎉"]


async def test_a_suggestion_offered_again_keeps_its_fate(store: Store) -> None:
    await store.add_completion(completion())
    await store.set_fate("a", "accepted_word", 6)
    await store.add_completion(completion())
    assert [a.text for a in await store.accepted(None)] == ["return"]


async def test_accepted_text_is_newest_first_per_repository(store: Store) -> None:
    for number in range(5):
        root = "/code/app" if number % 2 else "/code/other"
        await store.add_completion(completion(str(number), f"text {number}", repository=root))
    for number in (3, 0, 1, 4, 2):
        await store.set_fate(str(number), "accepted")
    assert [a.id for a in await store.accepted(None)] == ["2", "4", "1", "0", "3"]
    assert [a.id for a in await store.accepted("/code/app")] == ["1", "3"]
    assert [a.id for a in await store.accepted("/code/other", limit=2)] == ["2", "4"]
    assert await store.accepted("/nowhere") == []


async def test_nothing_of_an_untrusted_workspace_is_stored(store: Store) -> None:
    await store.add_completion(completion(trusted=False))
    assert await store.set_fate("a", "accepted") == ""
    assert await store.accepted(None) == []
    summary = await store.summary()
    assert summary["repositories"] == []
    assert summary["completions"] == {}


async def test_secrets_are_masked_before_they_are_stored(store: Store) -> None:
    text = 'password = "hunter2xyz"\nnext_line()'
    await store.add_completion(completion(text=text))
    stored = await store.set_fate("a", "accepted")
    assert "hunter2xyz" not in stored
    assert len(stored) == len(text)
    rows = [row async for row in store.export()]
    assert "hunter2xyz" not in str(rows)


async def test_an_unknown_fate_is_refused_and_an_unknown_completion_is_not_known(
    store: Store,
) -> None:
    await store.add_completion(completion())
    with pytest.raises(ValueError, match="no fate"):
        await store.set_fate("a", "eaten")  # type: ignore[arg-type]
    assert await store.set_fate("nobody", "accepted") == ""


async def test_old_completions_are_not_kept_for_ever(store: Store) -> None:
    for number in range(6):
        await store.add_completion(completion(str(number), created=1e9 + number))
    for day in range(1, 90):
        await store.add_completion(completion(f"day {day}", created=1e9 + 86400 * day))
    assert await store.retain(days=90) == 0
    await store.add_completion(completion("new"))
    assert await store.retain(days=90) == 6
    assert await store.retain(days=1) == 89
    for number in range(6):
        await store.add_completion(completion(str(number)))
    assert await store.retain(rows=3) == 4
    rows = [row async for row in store.export() if row["table"] == "completions"]
    assert [row["id"] for row in rows] == ["3", "4", "5"]


RANK = {fate: rank for rank, fate in enumerate([None, *FATES])}
events = st.lists(
    st.tuples(
        st.integers(0, 3),
        st.sampled_from(FATES),
        st.one_of(st.none(), st.integers(-3, len(TEXT) + 5)),
    ),
    max_size=20,
)


@settings(max_examples=40, deadline=None)
@given(events)
def test_fates_follow_the_model(events: list[tuple[int, Any, int | None]]) -> None:
    with Database(memory=True) as db:
        migrations.apply(db)
        model: dict[int, tuple[str | None, int]] = dict.fromkeys(range(4), (None, 0))
        for number in model:
            completions.add(db, completion(str(number)))
        for number, fate, length in events:
            old, taken = model[number]
            if fate == "accepted":
                taken = len(TEXT)
            elif fate.startswith("accepted_") and length is not None:
                taken = max(taken, min(len(TEXT), max(0, length)))
            whole = fate.startswith("accepted") and taken == len(TEXT)
            best = max(old, "accepted" if whole else fate, key=lambda f: RANK[f])
            model[number] = (best, taken)
            assert completions.set_fate(db, str(number), fate, length) == TEXT[:taken]
        counts: dict[str, int] = {}
        for fate, _ in model.values():
            counts[fate or "pending"] = counts.get(fate or "pending", 0) + 1
        assert completions.fates(db, "/code/app") == counts
        found = {a.id: a.text for a in completions.accepted(db, "/code/app", 100)}
        assert found == {str(n): TEXT[:taken] for n, (_, taken) in model.items() if taken}


@pytest.mark.parametrize("jump_s", [-1e8, 1e8])
async def test_a_clock_that_jumps_removes_nothing(
    store: Store, jump_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    for day in range(5):
        await store.add_completion(completion(f"day {day}", created=2e9 + 86400 * day))
    await store.save_learned(LearnedRow("confidence", None, "model", b"state"))
    monkeypatch.setattr("time.time", lambda: 2e9 + jump_s)
    await store.add_completion(completion("after", created=2e9 + jump_s))
    assert await store.retain() == 0
    assert await store.fates() == {"pending": 6}
    assert len(await store.learned("model")) == 1
