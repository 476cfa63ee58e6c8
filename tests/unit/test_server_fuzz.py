"""Whatever a client sends, the daemon answers with a reason and goes on; never with a 500."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path
from typing import Any

import pytest

from atlasd.server.app import PUBLIC, SOCKET_ONLY
from tests.served import served

GOOD: dict[str, dict[str, Any]] = {
    "/v1/completions": {"prompt": "x", "suffix": "y", "max_tokens": 4, "stop": ["a"], "n": 1,
                        "logprobs": 2, "stream": False, "echo": False, "temperature": 1.0,
                        "stream_options": {"include_usage": True}, "logit_bias": {"5": 1},
                        "prediction": {"type": "content", "content": "x"}},
    "/v1/chat/completions": {"messages": [{"role": "user", "content": "x"}], "max_tokens": 4,
                             "stop": "a", "n": 1, "stream": False, "seed": 1, "top_p": 0.5,
                             "prediction": {"type": "content", "content": [{"text": "x"}]},
                             "tools": [{"type": "function", "function": {"name": "f"}}],
                             "tool_choice": "auto", "parallel_tool_calls": False,
                             "response_format": {"type": "json_object"}},
    "/v1/fim/completions": {"prompt": "x", "suffix": "y", "max_tokens": 4},
    "/infill": {"input_prefix": "x", "input_suffix": "y", "prompt": "z", "n_predict": 4,
                "input_extra": [{"filename": "a", "text": "b"}], "response_fields": ["content"],
                "path": "/r/a.py"},
    "/v1/completions?segments": {"segments": {"prefix": "x", "suffix": "y", "filepath": "a.py"},
                                 "language": "python", "mode": "standard", "seed": 1},
    "/v1/events": {"type": "view", "completion_id": "cmpl-1", "choice_index": 0},
    "/completion": {"prompt": "x", "n_predict": 4, "stop": ["a"], "grammar": 'root ::= "a"',
                    "response_fields": ["content"], "return_tokens": True},
    "/tokenize": {"content": "x", "add_special": True, "with_pieces": True},
    "/detokenize": {"tokens": [65]},
    "/apply-template": {"messages": [{"role": "user", "content": "x"}], "tools": []},
    "/api/generate": {"prompt": "x", "suffix": "", "system": "s", "format": "json", "raw": False,
                      "stream": False, "options": {"num_predict": 4, "stop": "a"}},
    "/api/chat": {"messages": [{"role": "user", "content": "x"}], "format": {}, "stream": False,
                  "tools": [{"type": "function", "function": {"name": "f"}}], "options": {}},
    "/api/show": {"model": "x", "name": "y"},
    "/atlasd/v1/complete": {"prefix": "x", "suffix": "y", "path": "a.py", "language": "python",
                            "repository": "/r", "document": "d", "indent": {"size": 2},
                            "choices": 1, "max_tokens": 3, "trigger": "invoked"},
    "/atlasd/v1/fate": {"id": "x", "fate": "shown", "accepted_length": 1},
    "/atlasd/v1/workspace": {"open": [], "close": []},
    "/atlasd/v1/edited": {"path": "a", "text": "b", "repository": "/r"},
    "/atlasd/v1/drafting": {"on": True},
}  # fmt: skip

ODD: tuple[Any, ...] = (
    None, True, -1, 0, 10**6, 2**70, 1e308, -0.5, "", "\x00", "\ufffd", "é" * 300, [], [None],
    [[1]], {}, {"a": {}}, [{"role": 3}], "../../etc/passwd",
)  # fmt: skip


def test_every_post_is_tried_here_or_elsewhere() -> None:
    posts = {path for method, path, _ in (*PUBLIC, *SOCKET_ONLY) if method == "POST"}
    elsewhere = {
        "/completions",
        "/v1/health",
        "/v1beta/chat/completions",
        "/atlasd/v1/index",
        "/atlasd/v1/stop",
        "/atlasd/v1/pause",
        "/atlasd/v1/resume",
        "/atlasd/v1/data/purge",
    }
    assert posts == {path.partition("?")[0] for path in GOOD} | elsewhere


@pytest.mark.parametrize("path", GOOD)
async def test_odd_bodies_never_break_it(tmp_path: Path, path: str) -> None:
    chance = random.Random(path)
    async with served(tmp_path) as house, house.unix() as client:
        for round_ in range(60):
            body = {**GOOD[path]}
            for _ in range(chance.randint(0, 2)):
                body[chance.choice(list(body))] = chance.choice(ODD)
            if round_ % 10 == 0:
                body.pop(chance.choice(list(body)))
            if round_ < len(GOOD[path]):
                # Numbers beyond what a machine word holds, for every key there is.
                body = {**GOOD[path], list(GOOD[path])[round_]: 2**70}
            house.says("ab")
            async with asyncio.timeout(10), client.post(path, json=body) as answer:
                text = await answer.text()
                assert answer.status in (200, 400, 503), (body, text)
                if answer.status != 200:
                    assert '"message":"' in text or '{"error":"' in text, (body, text)
            house.engine.scripts.clear()
        assert house.daemon.supervisor.in_use == 0
        assert house.daemon.state == "ready"


async def test_odd_top_levels_are_refused(tmp_path: Path) -> None:
    async with served(tmp_path) as house, house.unix() as client:
        for path in GOOD:
            for body in (3, "x", [], [{}], True):
                async with client.post(path, json=body) as answer:
                    assert answer.status == 400, (path, body)
