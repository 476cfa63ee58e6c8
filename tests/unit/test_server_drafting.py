"""Drafting can be switched off for one request, whichever API it comes through."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.served import served

MESSAGES = [{"role": "user", "content": "x"}]
CALLS: list[tuple[str, dict[str, Any]]] = [
    ("/v1/completions", {"prompt": "x"}),
    ("/v1/completions", {"prompt": "x", "suffix": "y"}),
    ("/v1/chat/completions", {"messages": MESSAGES}),
    ("/v1/fim/completions", {"prompt": "x"}),
    ("/infill", {"input_prefix": "x = ", "input_suffix": "\n"}),
    ("/infill", {"input_prefix": "x = ", "input_suffix": "\n", "trim": False}),
]


@pytest.mark.parametrize(("path", "body"), CALLS)
@pytest.mark.parametrize(("asked", "drafting"), [({}, True), ({"speculative.n_max": 0}, False),
                                                 ({"speculative.n_max": 16}, True)])  # fmt: skip
async def test_a_request_may_switch_drafting_off_for_itself(
    tmp_path: Path, path: str, body: dict[str, Any], asked: dict[str, Any], drafting: bool
) -> None:
    async with served(tmp_path) as house, house.tcp() as client:
        house.says("abc")
        async with client.post(path, json={**body, **asked}) as answer:
            assert answer.status == 200, await answer.text()
        assert house.engine.submitted[0].drafting is drafting


async def test_the_same_place_with_and_without_drafting_is_decoded_twice(tmp_path: Path) -> None:
    # With text right of the cursor nothing is decoded ahead.
    body = {"input_prefix": "x = f(", "input_suffix": ", y)\n"}
    async with served(tmp_path) as house, house.tcp() as client:
        house.says("abcd")
        house.says("abcd")
        for asked in ({}, {"speculative.n_max": 0}, {}):
            async with client.post("/infill", json={**body, **asked}) as answer:
                assert (await answer.json())["content"].startswith("abc")
        assert [submit.drafting for submit in house.engine.submitted] == [True, False]


async def test_the_bridge_may_switch_drafting_off_too(tmp_path: Path) -> None:
    async with served(tmp_path) as house, house.unix() as client:
        house.says("abc")
        body = {"prefix": "x = ", "drafting": False}
        async with client.post("/atlasd/v1/complete", json=body) as answer:
            assert answer.status == 200
        assert house.engine.submitted[0].drafting is False
