"""What the clients of a soak do: a developer in an editor, and requests of every API, some of them
withdrawn, some asked again without drafting to compare the texts."""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp

from bench.demo.developer import Session, Shown, write
from bench.demo.editor import Editor
from bench.holes import bodies, hole_in

WITHDRAWN, ASKED_TWICE = 0.3, 0.5
"""Shares of the requests that are cancelled on the way, and that are compared."""

SCHEMA = {"type": "object", "properties": {"name": {"type": "string"}}, "required": ["name"]}


@dataclass
class Seen:
    """What came of the requests so far."""

    waited: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Milliseconds by kind of request."""
    counts: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    """Errors and texts that differ, in words."""

    def taken(self) -> tuple[Counter[str], dict[str, list[float]]]:
        """Counts and waits since this was asked last."""
        taken = self.counts, self.waited
        self.counts, self.waited = Counter(), defaultdict(list)
        return taken


@dataclass
class Clients:
    """Requests over the socket, from texts of the repositories."""

    socket: Path
    files: list[Path]
    seen: Seen
    chance: random.Random

    async def ask(self) -> None:
        """One client, who asks one thing after the other until it is cancelled."""
        connector = aiohttp.UnixConnector(str(self.socket))
        patient = aiohttp.ClientTimeout(total=None)
        async with aiohttp.ClientSession(
            "http://atlasd", connector=connector, timeout=patient
        ) as session:
            while True:
                kind, path, body = self._request()
                asking = asyncio.create_task(self._asked(session, kind, path, body))
                try:
                    if self.chance.random() < WITHDRAWN:
                        await asyncio.wait([asking], timeout=self.chance.expovariate(10))
                        self.seen.counts["withdrawn"] += not asking.done()
                    else:
                        await asking
                finally:
                    asking.cancel()
                    await asyncio.wait([asking])
                await asyncio.sleep(self.chance.expovariate(2))

    async def _asked(
        self, session: aiohttp.ClientSession, kind: str, path: str, body: dict[str, Any]
    ) -> None:
        text = await self._text(session, kind, path, body)
        if text is None or "path" in body or self.chance.random() > ASKED_TWICE:
            return
        plain = await self._text(session, kind, path, body | {"speculative.n_max": 0})
        self.seen.counts["compared"] += 1
        if plain != text:
            self.seen.wrong.append(f"{kind}: {text!r} is {plain!r} without drafting; {body}")

    async def _text(
        self, session: aiohttp.ClientSession, kind: str, path: str, body: dict[str, Any]
    ) -> str | None:
        """What was answered; None where that was an error."""
        began = time.perf_counter()
        try:
            async with session.post(path, json=body) as answer:
                said = await answer.text()
        except aiohttp.ClientError as error:
            self.seen.wrong.append(f"{kind}: {error!r}")
            return None
        if answer.status != 200:
            self.seen.wrong.append(f"{kind}: {answer.status} {said[:200]}")
            return None
        self.seen.waited[kind].append(1000 * (time.perf_counter() - began))
        self.seen.counts[kind] += 1
        if not body.get("stream"):
            whole = json.loads(said)
            return str(whole["content"] if path == "/infill" else whole["choices"][0])
        events = [line.removeprefix("data: ") for line in said.split("\n\n") if line[:5] == "data:"]
        chunks = [json.loads(event) for event in events if event != "[DONE]"]
        return "".join(
            choice.get("delta", {}).get("content") or ""
            for chunk in chunks
            for choice in chunk.get("choices", ())
        )

    def _request(self) -> tuple[str, str, dict[str, Any]]:
        file = self.chance.choice(self.files)
        try:
            text = file.read_text()
        except OSError:  # another branch does not have it
            text = "def main():\n    "
        at = self.chance.randrange(max(1, len(text)))
        before, after = text[max(0, at - 3000) : at], text[at : at + 800]
        sampling = {
            "temperature": self.chance.choice([0, 0, 0.8]),
            "seed": self.chance.randrange(1000),
        }
        limit = self.chance.choice([16, 32, 64, 96])
        match self.chance.randrange(6):
            case 0:
                hole = {"input_prefix": before, "input_suffix": after, "n_predict": limit}
                if self.chance.random() < 0.5:  # what is around it may change, and then the text
                    hole["path"] = str(file)
                return "infill", "/infill", hole
            case 1:
                raw = {"input_prefix": before, "input_suffix": after, "trim": False}
                return "infill, raw", "/infill", raw | sampling | {"n_predict": limit}
            case 2:
                middle = {"prompt": before, "suffix": after, "max_tokens": limit}
                return "completion in the middle", "/v1/completions", middle | sampling
            case 3:
                message = {"role": "user", "content": f"Name this:\n{before[-400:]}"}
                held = {"type": "json_schema", "json_schema": {"name": "n", "schema": SCHEMA}}
                body = {"messages": [message], "response_format": held, "max_tokens": limit}
                return "chat, JSON", "/v1/chat/completions", body | sampling
            case 4:
                message = {"role": "user", "content": f"Explain:\n{before[-1200:]}"}
                body = {"messages": [message], "stream": True, "max_tokens": limit}
                if self.chance.random() < 0.5:
                    body["prediction"] = {"type": "content", "content": before[-1200:]}
                return "chat, streamed", "/v1/chat/completions", body | sampling
        return "completion", "/v1/completions", {"prompt": before, "max_tokens": limit} | sampling


async def develop(
    editor: Editor,
    files: list[Path],
    seen: Seen,
    chance: random.Random,
    busy: asyncio.Event,
    over: asyncio.Event,
) -> None:
    """Write function bodies of a repository anew, one after the other, until it is over; not while
    others rest."""

    async def shown(one: Shown) -> None:
        seen.waited["editor"].append(one.suggested.ms)
        await busy.wait()

    while not over.is_set():
        await busy.wait()
        file = chance.choice(files)
        places = bodies(file.read_text()) if file.exists() else []
        if not places:
            await asyncio.sleep(0)
            continue
        session = Session()
        await write(editor, hole_in(file, *chance.choice(places)), session, shown)
        seen.counts["suggestions"] += len(session.shown)
        seen.counts["accepted"] += session.accepted + session.accepted_in_part
