"""A real daemon, on a real socket and port, over the scripted engine: for tests of the server.

async with served(tmp_path) as house:
    house.says("hello")              # what the next stream will say
    async with house.tcp() as client: await client.post("/v1/completions", json={...})
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import aiohttp
import tokenizers
from tokenizers import decoders, models, pre_tokenizers

from atlasd.config import load
from atlasd.daemon import Daemon
from atlasd.engine.protocol import Alternative, StreamStats, TokenLogprob
from atlasd.models.locate import ModelFiles
from atlasd.models.tokenizer import Tokenizer
from atlasd.paths import paths
from tests.fake_engine import READY, FakeEngine

SPECIAL = ("<|endoftext|>", "<|fim_prefix|>", "<|fim_suffix|>", "<|fim_middle|>", "<|fim_pad|>",
           "<|repo_name|>", "<|file_sep|>", "<|im_start|>", "<|im_end|>")  # fmt: skip

CHAT = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{{ '<|im_start|>assistant\n' }}"
)


def byte_tokenizer() -> Tokenizer:
    """One token per byte, and Qwen's special tokens."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    inner = tokenizers.Tokenizer(models.BPE({c: i for i, c in enumerate(alphabet)}, []))
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    inner.add_special_tokens([tokenizers.AddedToken(text, special=True) for text in SPECIAL])
    return Tokenizer(inner, {"eos_token": "<|endoftext|>", "chat_template": CHAT})


@dataclass
class House:
    """The daemon under test and how to reach it."""

    daemon: Daemon
    engine: FakeEngine
    tokenizer: Tokenizer
    port: int
    token: str

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def says(
        self,
        text: str,
        *,
        pieces: int = 1,
        reason: str = "stop",
        logprobs: bool = False,
        stats: StreamStats | None = None,
        **script: Any,
    ) -> None:
        """Script the next stream: ``text``, in messages of ``pieces`` tokens."""
        tokens = self.tokenizer.encode(text)
        batches = [tokens[at : at + pieces] for at in range(0, len(tokens), pieces)]
        scores: Sequence[Sequence[TokenLogprob]] = ()
        if logprobs:
            scores = [[TokenLogprob(-0.5, [Alternative(token, -0.5), Alternative(33, -2.0)])
                       for token in batch] for batch in batches]  # fmt: skip
        self.engine.enqueue(batches, reason=reason, logprobs=scores, stats=stats, **script)

    def prompt(self, index: int = -1) -> str:
        """A prompt that was submitted, special tokens spelled out."""
        tokenizer = self.tokenizer
        return "".join(
            SPECIAL[token - 256] if token >= 256 else tokenizer.decode([token])
            for token in self.engine.prompts[index]
        )

    def tcp(self, token: bool = True, **options: Any) -> aiohttp.ClientSession:
        """A client on TCP."""
        headers = {"Authorization": f"Bearer {self.token}"} if token else {}
        return aiohttp.ClientSession(self.base, headers=headers, **options)

    def unix(self) -> aiohttp.ClientSession:
        """A client on the socket."""
        connector = aiohttp.UnixConnector(str(self.daemon.paths.socket))
        return aiohttp.ClientSession("http://localhost", connector=connector)


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        port: int = one.getsockname()[1]
        return port


@contextlib.asynccontextmanager
async def served(
    home: Path, *, ready: bool = True, options: dict[str, Any] | None = None
) -> AsyncIterator[House]:
    """Open a daemon in ``home``. With ``ready`` its model needs no loading."""
    folders = paths({"ATLASD_HOME": str(home)})
    folders.create()
    port = free_port()
    config = load(folders.config_file, {}, {"server.port": port, **(options or {})})
    engine = FakeEngine(ready=ready)
    daemon = Daemon(config, folders, engine)
    tokenizer = byte_tokenizer()
    if not (home / "model.safetensors").exists():
        (home / "model.safetensors").touch()
    files = ModelFiles("tiny", "folder", home, {})
    await daemon.open()
    supervisor = daemon.supervisor
    supervisor.files, supervisor.tokenizer = files, tokenizer
    if ready:
        supervisor.start()
        await eventually(lambda: daemon.state == "ready")
    assert daemon.access is not None
    try:
        yield House(daemon, engine, tokenizer, port, daemon.access.token)
    finally:
        await daemon.close()


async def ask(house: House, path: str, body: Any = None) -> tuple[int, Any]:
    """Status and JSON of an answer on TCP: of a GET without a body, else of a POST."""
    async with house.tcp() as client:
        return await _answered(client, path, body)


async def ask_on_socket(house: House, path: str, body: Any = None) -> tuple[int, Any]:
    """The same on the UNIX socket."""
    async with house.unix() as client:
        return await _answered(client, path, body)


async def _answered(client: aiohttp.ClientSession, path: str, body: Any) -> tuple[int, Any]:
    asking = client.get(path) if body is None else client.post(path, json=body)
    async with asking as answer:
        return answer.status, await answer.json()


async def eventually(true: Callable[[], bool], patience: float = 5.0) -> None:
    """Wait until something has come about."""
    deadline = time.monotonic() + patience
    while not true():
        assert time.monotonic() < deadline, "it did not come about"
        await asyncio.sleep(0.005)


__all__ = [
    "READY",
    "House",
    "ask",
    "ask_on_socket",
    "byte_tokenizer",
    "eventually",
    "free_port",
    "served",
]
