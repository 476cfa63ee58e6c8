"""A layer whose keys know of the token before.

After "smeared keys" (Olsson et al., In-context Learning and Induction Heads, 2022): k += S n',
where n' is the normalised input of the token before. To go on with what followed the present token
earlier takes two layers otherwise, and a drafter has one.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from training.model import Layer, Shape


class SmearedLayer(Layer):
    """With a map of zeros it is a Layer."""

    def __init__(self, shape: Shape) -> None:
        super().__init__(shape)
        self.smear = nn.Linear(shape.hidden, shape.kv_heads * shape.head_dim, bias=False)
        nn.init.zeros_(self.smear.weight)

    def project(self, x: Tensor, before: Tensor | None = None) -> Tensor:
        normed = self.norm1(x)
        first = torch.zeros_like(normed[:, :1]) if before is None else self.norm1(before)
        added = self.smear(torch.cat((first, normed[:, :-1]), dim=1))
        q, _, v = self.splits
        return self.qkv(normed) + F.pad(added, (q, v))
