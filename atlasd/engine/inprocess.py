"""Streams without a second process: for tests, benchmarks and notebooks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from atlasd.engine.framing import pack_tokens, unpack_tokens
from atlasd.engine.protocol import Finished, Sampling, StreamStats, Submit, TokenLogprob, Tokens
from atlasd.engine.steps import Engine


@dataclass
class Output:
    """What became of one stream; ``reason`` is empty while it runs."""

    tokens: list[int] = field(default_factory=list)
    logprobs: list[TokenLogprob] = field(default_factory=list)
    reason: str = ""
    message: str = ""
    stats: StreamStats = field(default_factory=StreamStats)


class Outputs(dict[int, Output]):
    """Outputs by stream number; give ``take`` to an Engine as its ``emit``."""

    def take(self, message: Tokens | Finished) -> None:
        output = self.setdefault(message.stream, Output())
        if isinstance(message, Tokens):
            output.tokens += unpack_tokens(message.tokens)
            output.logprobs += message.logprobs
        else:
            output.reason, output.message = message.reason, message.message
            output.stats = message.stats


def request(
    stream: int,
    tokens: Sequence[int],
    *,
    max_tokens: int = 64,
    sampling: Sampling | None = None,
    stop_tokens: Sequence[int] = (),
    drafting: bool = True,
) -> Submit:
    """A ``Submit`` from plain lists."""
    return Submit(
        stream=stream,
        tokens=pack_tokens(tokens),
        max_tokens=max_tokens,
        sampling=sampling or Sampling(),
        stop_tokens=list(stop_tokens),
        drafting=drafting,
    )


def run(engine: Engine) -> None:
    """Step until every stream has ended."""
    while engine.step():
        pass
