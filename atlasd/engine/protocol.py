"""The words that daemon and engine exchange: msgspec structs, length-prefixed msgpack.

A frame is a 4-byte little-endian length and one msgpack-encoded message. Token arrays travel as
raw little-endian int32 bytes. Only tokens cross this boundary, never text.
"""

from __future__ import annotations

import signal
from enum import IntEnum

import msgspec


class Priority(IntEnum):
    """Lower goes first. *AHEAD* decodes what has not been asked for yet."""

    COMPLETION = 0
    CHAT = 1
    AHEAD = 2


class Sampling(msgspec.Struct, frozen=True, omit_defaults=True):
    """How the target's next token is chosen. ``temperature`` 0 is argmax; otherwise Gumbel noise
    keyed by (seed, choice, output index, token id) is added, so the same request and seed give
    the same tokens whatever else happens."""

    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    logit_bias: dict[int, float] = {}
    seed: int = 0
    choice: int = 0


# Daemon to engine


class Load(msgspec.Struct, tag=True, omit_defaults=True):
    """The first message after a start: which model to load, and how. Answered by ``Loading`` and
    then ``Ready`` or ``Failed``. Fields left at their defaults are chosen by the engine."""

    model: str | None = None
    """As ``models.locate.find_model`` takes it; None is the bundled model."""
    dtype: str = "auto"
    threads: int = 0
    """0: measured once per machine and model, then kept."""
    slots: int = 0
    slot_tokens: int = 0
    drafting: bool = True
    backend: str = "auto"
    fingerprint: str = ""
    """The tokenizer's: what drafters keep between runs is kept under it. Empty: the model's own."""
    line_ends: list[int] = []
    """The tokens that end a line, for drafters that go by lines. Empty: not known."""


class Submit(msgspec.Struct, tag=True, omit_defaults=True):
    """Decode a stream. Answered by ``Tokens`` and one ``Finished``."""

    stream: int
    tokens: bytes
    max_tokens: int
    sampling: Sampling = Sampling()
    stop_tokens: list[int] = []
    priority: Priority = Priority.COMPLETION
    repository: str | None = None
    language: str | None = None
    prediction: bytes = b""
    logprobs: int = -1
    """Report the log-probability of each token and this many alternatives; -1: none."""
    drafting: bool = True
    learn: bool = True
    """False in workspaces that are not trusted: nothing of this stream is kept."""
    prefix_end: int = 0
    """In a prompt that asks to fill in the middle, so many of its tokens end with the text that the
    output continues; drafters look back to it. 0: the whole prompt."""
    grammar: str = ""
    """What the output is held to, as llguidance's ``LLMatcher.grammar_from_…`` writes it."""


class Cancel(msgspec.Struct, tag=True):
    """Stop a stream within one step; answered by ``Finished`` with reason ``cancelled``."""

    stream: int


class Promote(msgspec.Struct, tag=True):
    """A stream decoded ahead was asked for: give it this priority from now on."""

    stream: int
    priority: Priority


class AddSegment(msgspec.Struct, tag=True, omit_defaults=True):
    """A text that can be drafted from, or its new version. Replaces the segment of that name."""

    segment: str
    repository: str
    kind: str
    """``file`` or ``accepted``."""
    tokens: bytes
    language: str | None = None
    modified: float = 0.0
    """When the text last changed, in seconds since the epoch; 0: not known."""


class DropSegment(msgspec.Struct, tag=True):
    """A file was deleted or became ignored."""

    segment: str
    repository: str


class DropRepository(msgspec.Struct, tag=True):
    """Forget all that was learned from a repository (``None``: everything)."""

    repository: str | None


class Restore(msgspec.Struct, tag=True):
    """Learned state saved earlier by ``Learned``, given back after a start."""

    kind: str
    repository: str | None
    payload: bytes


class Reload(msgspec.Struct, tag=True):
    """The target's weights have changed (a folder or file of the same architecture and tokenizer):
    serve these from now on. Streams that run end first; later ones wait. Answered by ``Reloaded``.
    """

    request: int
    model: str


class Explain(msgspec.Struct, tag=True):
    """Ask why the steps of a stream (recent ones are kept) were planned as they were."""

    request: int
    stream: int


class AskStatus(msgspec.Struct, tag=True):
    request: int


class SetDrafting(msgspec.Struct, tag=True):
    on: bool


class Shutdown(msgspec.Struct, tag=True):
    """Save what was learned, then end."""


ToEngine = (
    Load
    | Submit
    | Cancel
    | Promote
    | AddSegment
    | DropSegment
    | DropRepository
    | Restore
    | Explain
    | Reload
    | AskStatus
    | SetDrafting
    | Shutdown
)


# Engine to daemon


class Loading(msgspec.Struct, tag=True):
    """Progress of loading: what is being done, and how far it is (0..1)."""

    stage: str
    fraction: float


class Ready(msgspec.Struct, tag=True):
    """The model serves. ``model`` describes it for people and /metrics."""

    model: str
    backend: str
    dtype: str
    threads: int
    slots: int
    slot_tokens: int
    memory: dict[str, int]
    drafters: list[str]


class Failed(msgspec.Struct, tag=True):
    """The model could not be loaded; the process ends after this."""

    message: str
    hint: str


class Alternative(msgspec.Struct, array_like=True):
    token: int
    logprob: float


class TokenLogprob(msgspec.Struct, array_like=True):
    logprob: float
    top: list[Alternative]


class Tokens(msgspec.Struct, tag=True, omit_defaults=True):
    """Verified tokens of a stream, in order."""

    stream: int
    tokens: bytes
    logprobs: list[TokenLogprob] = []


class StreamStats(msgspec.Struct, omit_defaults=True):
    """What a request cost. Times in milliseconds."""

    queue_ms: float = 0.0
    prefill_ms: float = 0.0
    decode_ms: float = 0.0
    draft_ms: float = 0.0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    prefilled_tokens: int = 0
    output_tokens: int = 0
    steps: int = 0
    rows: int = 0
    drafted: dict[str, int] = {}
    """Tokens drafted and verified, by source."""
    accepted: dict[str, int] = {}
    foreseen: float = 0.0
    """How many of the drafted tokens confidence expected to be accepted."""
    prediction_accepted: int = 0
    """Tokens of the request's prediction that the output has."""
    prediction_rejected: int = 0
    """Those it does not have."""


class Finished(msgspec.Struct, tag=True, omit_defaults=True):
    """The end of a stream: ``stop``, ``length``, ``cancelled`` or ``error``."""

    stream: int
    reason: str
    stats: StreamStats
    message: str = ""


class Explanation(msgspec.Struct, tag=True):
    """The planned steps of a stream as JSON-ready dictionaries, oldest first."""

    request: int
    steps: list[dict[str, object]]


class Reloaded(msgspec.Struct, tag=True):
    """The new weights serve, or ``message`` says why the old ones still do."""

    request: int
    message: str = ""


class Status(msgspec.Struct, tag=True):
    """A snapshot for ``atlasd status``, ``atlasd top``, /metrics and the dashboard."""

    request: int
    streams: int
    queued: int
    counters: dict[str, float]
    memory: dict[str, int]
    step_ms: dict[str, float]
    """Measured milliseconds of a step by row bucket."""
    sources: dict[str, dict[str, float]]
    """By drafter: drafted, accepted, recent hit rate."""


class Learned(msgspec.Struct, tag=True):
    """State to be kept by the store and given back by ``Restore``: ``confidence`` per repository,
    ``adapter`` (its versions) per repository, ``costs`` per machine and model."""

    kind: str
    repository: str | None
    payload: bytes


FromEngine = (
    Loading | Ready | Failed | Tokens | Finished | Explanation | Reloaded | Status | Learned
)

HEADER_BYTES = 4

DUMP_SIGNAL = signal.SIGUSR1
"""The engine writes where each of its threads is, and ends; in the midst of native code, too."""
