"""Tokens of files that are kept: found again after any crash, and bounded."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from atlasd.workspace.analysis import analyse, content_hash
from atlasd.workspace.scan import Found
from atlasd.workspace.tokencache import TokenCache, cache_file, remove_caches, remove_oldest
from tests.unit.full_disk import at_most


def test_kept_tokens_are_found_again_after_any_crash(tmp_path: Path) -> None:
    path = cache_file(tmp_path, Path("/code"), "key")
    cache, analysis = TokenCache(path), analyse("def f():\n    pass\n", "python")
    for number in range(20):
        found = Found(f"{number % 10}.py", "python", number, 1000 * number)
        cache.put(found, content_hash(bytes([number])), bytes([number] * 8), analysis, now=10)
    cache.close()
    whole = path.read_bytes()
    for cut in (len(whole), len(whole) - 1, len(whole) // 2, 40, 3, 0):
        path.write_bytes(whole[:cut])
        cache = TokenCache(path)
        kept = [cached for n in range(10) if (cached := cache.get(f"{n}.py"))]
        complete = cut * 20 // len(whole)
        assert min(10, complete) - 1 <= len(kept) <= min(10, complete)
        for cached in kept:
            assert cached.tokens == bytes([cached.size] * 8)
            assert cached.hash == content_hash(bytes([cached.size]))
            assert np.array_equal(cached.analysis.definitions, analysis.definitions)
            assert np.array_equal(cached.analysis.lines, analysis.lines)
        cache.close()
    assert remove_caches(tmp_path, Path("/other")) == 0
    assert remove_caches(tmp_path, Path("/code")) == 1


def test_a_scrambled_record_is_not_believed(tmp_path: Path) -> None:
    path = tmp_path / "x.tokens"
    cache = TokenCache(path)
    found = Found("a.py", "python", 1, 1)
    cache.put(found, bytes(16), bytes(400), analyse("x", "python"), now=10)
    cache.close()
    content = bytearray(path.read_bytes())
    content[-30] ^= 0xFF
    path.write_bytes(content)
    cache = TokenCache(path)
    assert cache.get("a.py") is None
    cache.close()


def test_what_a_purge_removed_is_not_rewritten(tmp_path: Path) -> None:
    path = cache_file(tmp_path, Path("/code"), "key")
    cache, analysis = TokenCache(path), analyse("x", "python")
    cache.put(Found("a.py", "python", 1, 1), bytes(16), bytes(1 << 20), analysis, now=10)
    path.with_suffix(".new").write_bytes(b"left by a daemon that was killed")
    assert remove_caches(tmp_path, Path("/code")) == 2
    for _ in range(15):
        cache.put(Found("a.py", "python", 1, 1), bytes(16), bytes(1 << 20), analysis, now=10)
    with pytest.raises(FileNotFoundError):
        cache.put(Found("a.py", "python", 1, 1), bytes(16), bytes(1 << 20), analysis, now=10)
    cache.close()
    assert list(tmp_path.iterdir()) == []


def test_kept_tokens_that_cannot_be_rewritten_stay_as_they_are(tmp_path: Path) -> None:
    path, analysis = tmp_path / "x.tokens", analyse("x", "python")
    cache = TokenCache(path)
    for number in range(3):
        found = Found(f"{number}.py", "python", 1, 1)
        cache.put(found, bytes(16), bytes([number]) * (1 << 20), analysis, now=10)
    with at_most(2 << 20), pytest.raises(OSError, match="space"):
        cache._compact()
    assert [cache.get(f"{n}.py").tokens[0] for n in range(3)] == [0, 1, 2]  # type: ignore[union-attr]
    cache.close()
    assert list(tmp_path.iterdir()) == [path]


def test_tokens_of_roots_not_opened_for_longest_go_first(tmp_path: Path) -> None:
    analysis = analyse("x", "python")
    for day, name in enumerate("abcd"):
        cache = TokenCache(tmp_path / f"{name}.tokens")
        cache.put(Found("f.py", "python", 1, 1), bytes(16), bytes(1000), analysis, now=10)
        cache.close()
        os.utime(cache.path, (day, day))
    TokenCache(tmp_path / "a.tokens").close()
    remove_oldest(tmp_path, most=2500)
    assert sorted(path.stem for path in tmp_path.iterdir()) == ["a", "c", "d"]
    remove_oldest(tmp_path, most=10)
    assert [path.stem for path in tmp_path.iterdir()] == ["a"]


def test_kept_tokens_are_rewritten_when_most_of_them_are_waste(tmp_path: Path) -> None:
    path = tmp_path / "x.tokens"
    cache, analysis = TokenCache(path), analyse("x", "python")
    for number in range(80):
        found = Found(f"{number % 4}.py", "python", number, 1)
        cache.put(found, bytes(16), bytes([number]) * (1 << 20), analysis, now=10)
        assert path.stat().st_size < 21 << 20  # also of a daemon that runs for weeks
    cache.close()
    cache = TokenCache(path)
    assert [cache.get(f"{n}.py").tokens[0] for n in range(4)] == [76, 77, 78, 79]  # type: ignore[union-attr]
    cache.put(Found("0.py", "python", 9, 9), bytes(16), b"new!", analysis, now=10)
    cache.close()
    cache = TokenCache(path)
    assert cache.get("0.py").tokens == b"new!"  # type: ignore[union-attr]
    assert cache.get("3.py").tokens[0] == 79  # type: ignore[union-attr]
    cache.close()
