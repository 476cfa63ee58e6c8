"""The target's states as a second input of its drafter, after EAGLE (Li et al. 2024).

A drafter that reads tokens alone has to find out by itself what the target knows already. So what
it reads at a position is the token's embedding plus a linear map of the target's final state one
position before: the state that chose this token. The target has it for every token it verified;
along a chain the drafter puts in its own final state instead; for a prompt, which may have been
cached, there is none.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.model import Decoder, Shape

UNKNOWN, TARGET, OWN = 0, 1, 2
"""Where a position's feature comes from."""

LONGEST_PROMPT, LONGEST_OUTPUT, LONGEST_CHAIN = 384, 160, 6


class FeatureDecoder(Decoder):
    """A decoder whose inputs are embeddings plus mapped features; without them it is a Decoder."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.feature = nn.Linear(shape.hidden, shape.hidden, bias=False)
        nn.init.zeros_(self.feature.weight)

    def featured(self, tokens: Tensor, features: Tensor) -> Tensor:
        """tokens [batch, length], features [batch, length, hidden] (zeros: unknown) -> final
        normed states [batch, length, hidden]."""
        return self.through(self.embed(tokens) + self.feature(features))


def shifted(states: Tensor) -> Tensor:
    """States [batch, length, hidden] moved to the position that reads what they chose."""
    return F.pad(states[:, :-1], (0, 0, 1, 0))


def draw_sources(batch: int, length: int, generator: torch.Generator) -> Tensor:
    """Sources [batch, length] as a drafter meets them: prompts, then outputs of which some steps
    are verified rows and the others lie in chains."""

    def draw(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=generator))

    sources = torch.zeros(batch, length, dtype=torch.long)
    for row in sources:
        at = draw(0, LONGEST_PROMPT) if draw(0, 3) else 0
        while at < length:
            end = min(length, at + draw(16, LONGEST_OUTPUT))
            while at < end:
                verified = draw(1, 4)
                row[at : at + verified] = TARGET
                at += verified
                chain = draw(1, LONGEST_CHAIN)
                row[at : at + chain] = OWN
                at += chain
            at = end + (draw(16, LONGEST_PROMPT) if draw(0, 1) else 1)
            row[end:at] = UNKNOWN
    return sources


def student_states(student: FeatureDecoder, tokens: Tensor, known: Tensor, sources: Tensor) -> Tensor:
    """The student's states where features come from ``sources``; ``known`` are the target's.

    What the student itself would carry along is taken from two passes without gradients: the
    first as if the target were known throughout, the second with what that one carries.
    """
    features = shifted(known) * (sources != UNKNOWN).unsqueeze(-1)
    own = (sources == OWN).unsqueeze(-1)
    with torch.no_grad():
        for _ in range(2):
            carried = shifted(student.featured(tokens, features))
            features = torch.where(own, carried, features)
    return student.featured(tokens, features)
