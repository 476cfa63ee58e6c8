"""A drafter that carries states: the one that chose a token adds to the one after it.

After EAGLE (Li et al. 2024), kept outside of the layer: h = norm(layer(tokens) + W f), where f is
the final state that chose the token just read. For a verified token that is the target's, which
knows more than a one-layer drafter can find out; along a chain it is the drafter's own; at times
it is not known. Keys and values do not depend on it, so that all of these are one pass.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.model import Decoder, Shape
from training.smear import SmearedLayer


class DraftModel(Decoder):
    """A decoder of smeared layers, with W; with zeros for what these two add it is a Decoder."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.layers = nn.ModuleList(SmearedLayer(shape) for _ in range(shape.layers))
        self.reset()
        self.carry = nn.Linear(shape.hidden, shape.hidden, bias=False)
        nn.init.zeros_(self.carry.weight)


def shifted(states: Tensor) -> Tensor:
    """States [batch, length, hidden] moved to the token that they chose."""
    return F.pad(states[:, :-1], (0, 0, 1, 0))


def student_states(student: DraftModel, tokens: Tensor, known: Tensor, depth: Tensor) -> Tensor:
    """The student's states [batch, length, hidden] of tokens [batch, length].

    ``known`` are the target's states; ``depth`` [batch, length] is where in a chain each token
    stands: 0 reads the target's state, n the student's own after n steps, -1 none.
    """
    inside = student.through(student.embed(tokens), normed=False)
    carried, chosen = shifted(known), torch.zeros_like(known)
    for step in range(int(depth.max()) + 1):
        chosen = torch.where((depth == step).unsqueeze(-1), carried, chosen)
        with torch.no_grad():
            carried = shifted(student.norm(inside + student.carry(carried)))
    return student.norm(inside + student.carry(chosen))


def draw_depths(batch: int, length: int, generator: torch.Generator, deepest: int = 4) -> Tensor:
    """Depths as a drafter meets them: the deeper the rarer, one token in ten without a state."""
    draws = torch.rand(batch, length, generator=generator)
    chances = torch.tensor([0.1, *(0.7**n for n in range(deepest + 1))])
    chances[1:] *= 0.9 / chances[1:].sum()
    return torch.bucketize(draws, chances.cumsum(0)[:-1]) - 1
