"""How much of a static drafter's drafts the target accepts: greedy, fixed lookahead.

python -m training.acceptance --drafter atlasd/models/bundled/drafter [--language python]
"""

import argparse
import json
import random
import time
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from training.carry import DraftModel
from training.distill import drafted_ids
from training.evaluate import Subject
from training.export import load_draft_model
from training.fetch import HERE
from training.generate import Cache, continue_all, follow
from training.pack import read

BUNDLED = HERE.parent / "atlasd/models/bundled"


class Tally(NamedTuple):
    drafted: int
    accepted: int
    steps: int
    tokens: int


@torch.no_grad()
def draft(
    model: DraftModel, last: list[int], chose: Tensor, cache: Cache, ids: Tensor, count: int
) -> list[int]:
    """`count` tokens after `last`, whose last token the state `chose` [hidden] chose; the cache is
    left where `last` ended."""
    head = model.embed.weight[ids]
    tokens, end, made = torch.tensor([last]), cache.length + len(last), list[int]()
    for _ in range(count):
        chose = model.norm(follow(model, tokens, cache)[0] + model.carry(chose))
        made.append(int(ids[(chose @ head.T).argmax()]))
        tokens = torch.tensor([made[-1:]])
    cache.length = end
    return made


@torch.no_grad()
def simulate(
    subject: Subject,
    drafter: DraftModel,
    ids: Tensor,
    prompt: list[int],
    text: list[int],
    lookahead: int,
) -> Tally:
    """Draft along the target's greedy `text`; a step yields what was accepted and one token.

    The text's first token comes from the prompt's prefill. Drafts past the end do not count.
    """
    states = subject.model.hidden(torch.tensor([[*prompt, *text]]))[0, len(prompt) - 1 :]
    cache = Cache(drafter, len(prompt) + len(text) + lookahead)
    pending, at = [*prompt, text[0]], 1
    drafted = accepted = steps = 0
    while at < len(text):
        proposal = draft(drafter, pending, states[at - 1], cache, ids, lookahead)
        proposal = proposal[: len(text) - at]
        good = 0
        while good < len(proposal) and proposal[good] == text[at + good]:
            good += 1
        drafted, accepted, steps = drafted + len(proposal), accepted + good, steps + 1
        pending = text[at : at + good + 1]
        at += len(pending)
    return Tally(drafted, accepted, steps, len(text) - 1)


def prompts(subject: Subject, language: str, count: int, length: int) -> list[list[int]]:
    """`count` runs of `length` tokens that end somewhere inside held-out files."""
    rng = random.Random(11)
    files = [subject.encode(document.text) for document in read("held_out", language)]
    files = [ids for ids in files if len(ids) > length + 100]
    found = []
    for _ in range(count):
        ids = rng.choice(files)
        start = rng.randrange(len(ids) - length)
        found.append(ids[start : start + length])
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--target", type=Path, default=BUNDLED / "target")
    parser.add_argument("--drafter", type=Path, default=BUNDLED / "drafter")
    parser.add_argument("--language", default="python")
    parser.add_argument("--lookahead", type=int, default=4)
    parser.add_argument("--prompts", type=int, default=60)
    parser.add_argument("--length", type=int, default=300)
    parser.add_argument("--threads", type=int, default=1)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    subject = Subject(args.target)
    drafter = load_draft_model(args.drafter).eval()
    ids = drafted_ids(args.drafter)
    tallies = []
    began = time.process_time()
    started = prompts(subject, args.language, args.prompts, args.length)
    texts = continue_all(subject.model, started, 128, subject.end)
    for prompt, text in zip(started, texts, strict=True):
        if len(text) > 1:
            tallies.append(simulate(subject, drafter, ids, prompt, text, args.lookahead))
    drafted, accepted, steps, tokens = (sum(column) for column in zip(*tallies, strict=True))
    print(
        json.dumps(
            {
                "language": args.language,
                "accepted_over_drafted": accepted / drafted,
                "tokens_per_step": tokens / steps,
                "drafted": drafted,
                "cpu_seconds": time.process_time() - began,
            }
        )
    )


if __name__ == "__main__":
    main()
