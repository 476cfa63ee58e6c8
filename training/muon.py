"""Muon for hidden matrices: momentum made nearly orthogonal (Jordan et al., 2024)."""

from collections import defaultdict
from collections.abc import Container, Iterable

import torch
from torch import Tensor

_A, _B, _C = 3.4445, -4.7750, 2.0315  # quintic that takes singular values to about 1


def orthogonalise(batch: Tensor, steps: int = 5) -> Tensor:
    """Nearly orthogonal matrices [n, rows, columns] in the directions of `batch`."""
    x = batch.bfloat16() if batch.is_cuda else batch
    tall = x.shape[-2] > x.shape[-1]
    if tall:
        x = x.mT
    x = x / (x.norm(dim=(-2, -1), keepdim=True) + 1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = _A * x + (_B * gram + _C * gram @ gram) @ x
    return (x.mT if tall else x).to(batch.dtype)


class Muon(torch.optim.Optimizer):
    """A fused projection carries `splits`: the rows of each matrix in it, treated alone."""

    def __init__(self, parameters: Iterable[Tensor], lr: float, decay: float = 0.0) -> None:
        super().__init__(parameters, {"lr": lr, "momentum": 0.95, "decay": decay})

    def share_memory(self) -> None:
        """Momentum in shared memory, so that each process can step some of the parameters."""
        for group in self.param_groups:
            for parameter in group["params"]:
                momentum = self.state[parameter].get("momentum", torch.zeros_like(parameter))
                self.state[parameter]["momentum"] = momentum.share_memory_()

    @torch.no_grad()
    def step(self, closure: None = None, only: Container[int] | None = None) -> None:  # type: ignore[override]
        """One update; `only` the parameters with these `id`s, if given."""
        for group in self.param_groups:
            by_shape: defaultdict[torch.Size, list[tuple[Tensor, Tensor]]] = defaultdict(list)
            for parameter in group["params"]:
                if parameter.grad is None or (only is not None and id(parameter) not in only):
                    continue
                state = self.state[parameter]
                if "momentum" not in state:
                    state["momentum"] = torch.zeros_like(parameter)
                momentum = state["momentum"]
                momentum.lerp_(parameter.grad, 1 - group["momentum"])
                update = parameter.grad.lerp(momentum, group["momentum"])  # Nesterov
                splits = getattr(parameter, "splits", [len(parameter)])
                for part, view in zip(update.split(splits), parameter.split(splits), strict=True):
                    by_shape[part.shape].append((part, view))
            for shape, pairs in by_shape.items():
                updates = orthogonalise(torch.stack([update for update, _ in pairs]))
                scale = group["lr"] * max(1.0, shape[0] / shape[1]) ** 0.5
                for (_, view), update in zip(pairs, updates, strict=True):
                    view.mul_(1 - group["lr"] * group["decay"]).add_(update, alpha=-scale)
