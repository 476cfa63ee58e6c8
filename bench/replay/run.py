"""Runs a workload through a rule or through atlasd's drafting, and counts."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from time import thread_time

import numpy as np

from atlasd.draft.drafter import Draft, StreamView
from atlasd.draft.registry import Drafting
from bench.replay.baselines import Rule
from bench.replay.costs import TableCosts
from bench.replay.static import Static
from bench.replay.workload import Request, Workload


@dataclass
class Outcome:
    """Totals of a run."""

    name: str
    tokens: int = 0
    steps: int = 0
    rows: int = 0
    target_ms: float = 0.0
    """Modelled time of the target's steps."""
    plain_ms: float = 0.0
    """Modelled time of the same tokens without drafting."""
    drafting_ms: list[float] = field(default_factory=list)
    """Processor time of planning and settling, per step."""
    drafted: Counter[str] = field(default_factory=Counter)
    accepted: Counter[str] = field(default_factory=Counter)
    speedups: list[float] = field(default_factory=list)
    """Per request."""
    requests: list[tuple[int, int, int]] = field(default_factory=list)
    """Per request: tokens, steps, drafted rows."""

    def add(self, other: Outcome) -> None:
        """Count another run in."""
        self.tokens += other.tokens
        self.steps += other.steps
        self.rows += other.rows
        self.target_ms += other.target_ms
        self.plain_ms += other.plain_ms
        self.drafting_ms += other.drafting_ms
        self.drafted += other.drafted
        self.accepted += other.accepted
        self.speedups += other.speedups
        self.requests += other.requests

    @property
    def per_step(self) -> float:
        return self.tokens / max(1, self.steps)

    @property
    def speedup(self) -> float:
        """Against plain, without the time that drafting itself took."""
        return self.plain_ms / self.target_ms if self.target_ms else 0.0

    @property
    def speedup_with_drafting(self) -> float:
        """Against plain, with the processor time that drafting took on this machine."""
        total = self.target_ms + sum(self.drafting_ms)
        return self.plain_ms / total if total else 0.0


def view(number: int, request: Request) -> StreamView:
    """The stream of a request before its first step."""
    return StreamView(
        number,
        list(request.prompt),
        len(request.prompt),
        request.repository,
        request.language,
        None if request.prediction is None else np.array(request.prediction, np.int32),
        prefix_end=request.prefix_end,
    )


def agreement(draft: list[int], text: list[int], at: int) -> int:
    """How many drafted tokens are the recorded ones; the last recorded token ends the request."""
    count = 0
    for token in draft:
        if at + count >= len(text) - 1 or token != text[at + count]:
            break
        count += 1
    return count


def run_rule(
    workload: Workload,
    rule: Rule,
    costs: TableCosts,
    most: int = 63,
    static: Static | None = None,
) -> Outcome:
    """A baseline over a workload; what it drafts with ``static`` is paid for."""
    outcome = Outcome(rule.name)
    for number, request in enumerate(workload.requests):
        for path, tokens in request.changed:
            rule.add(path, tokens)
        stream = view(number, request)
        if static is not None:
            static.begin(stream, request)
        rule.begin(stream)
        at = 0
        while at < len(request.text):
            read_ms = static.model.spent_ms if static is not None else 0.0
            draft = rule.propose(stream, most)[:most]
            if static is not None:
                outcome.target_ms += static.model.spent_ms - read_ms
            accepted = agreement(draft, request.text, at)
            new = request.text[at : at + accepted + 1]
            _count(outcome, costs, stream, rule.name, len(draft), accepted, len(new))
            if static is not None:
                static.follow(stream, at, len(new))
            stream.tokens.extend(new)
            at += len(new)
            rule.observe(stream, new, accepted, len(draft))
    return outcome


def run_drafting(
    workload: Workload,
    drafting: Drafting,
    costs: TableCosts,
    most: int = 63,
    name: str = "atlasd",
    static: Static | None = None,
    learn: bool = True,
) -> Outcome:
    """atlasd's drafters and controller over a workload. ``learn`` False: nothing of it is learned,
    no file and no request; a stream still drafts from its own prompt and output."""
    outcome = Outcome(name)
    controller = drafting.controller
    for number, request in enumerate(workload.requests):
        for path, tokens in request.changed if learn else ():
            drafting.add_segment(path, request.repository, "file", tokens, request.language)
        stream = view(number, request)
        stream.learn = learn
        if static is not None:
            static.begin(stream, request)
        controller.begin(stream)
        before = outcome.target_ms, outcome.plain_ms
        counted = outcome.tokens, outcome.steps, outcome.rows
        at = 0
        while at < len(request.text):
            read_ms = static.model.spent_ms if static is not None else 0.0
            took_s = static.model.took_s if static is not None else 0.0
            started = thread_time()
            draft: Draft = controller.plan([stream], most).drafts[0]
            spent = thread_time() - started
            if static is not None:
                spent -= static.model.took_s - took_s
            if static is not None:
                outcome.target_ms += static.model.spent_ms - read_ms
            accepted = agreement(draft.tokens, request.text, at)
            new = request.text[at : at + accepted + 1]
            ms = _count(outcome, costs, stream, draft.source, len(draft.tokens), accepted, len(new))
            if static is not None:
                static.follow(stream, at, len(new))
            stream.tokens.extend(new)
            at += len(new)
            started = thread_time()
            controller.settle(stream, draft, accepted, new, None, ms)
            outcome.drafting_ms.append((spent + thread_time() - started) * 1e3)
        controller.end(stream)
        target_ms = outcome.target_ms - before[0]
        outcome.speedups.append((outcome.plain_ms - before[1]) / target_ms if target_ms else 1.0)
        steps = outcome.steps - counted[1]
        outcome.requests.append(
            (outcome.tokens - counted[0], steps, outcome.rows - counted[2] - steps)
        )
    return outcome


def _count(
    outcome: Outcome,
    costs: TableCosts,
    stream: StreamView,
    source: str,
    drafted: int,
    accepted: int,
    verified: int,
) -> float:
    kv_tokens = len(stream.tokens)
    ms = costs.ms(1 + drafted, kv_tokens)
    outcome.tokens += verified
    outcome.steps += 1
    outcome.rows += 1 + drafted
    outcome.target_ms += ms
    outcome.plain_ms += costs.ms(1, kv_tokens) * verified
    if drafted:
        outcome.drafted[source] += drafted
        outcome.accepted[source] += accepted
    return ms
