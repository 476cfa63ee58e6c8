"""Cross-entropy over a large vocabulary without ever holding the logits of a whole batch."""

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

ROWS = 1024  # logits of one chunk stay inside a shared last-level cache


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, states: Tensor, head: Tensor, targets: Tensor) -> Tensor:
        # On a GPU the matmuls are bf16; the logits' exponentials and sums stay fp32 everywhere.
        kind = torch.bfloat16 if states.is_cuda else states.dtype
        weights = head.to(kind)
        grad_states = torch.empty_like(states)
        grad_head = torch.zeros_like(head)
        total = torch.zeros((), dtype=torch.float32, device=states.device)
        with torch.autocast(states.device.type, enabled=False):
            for start in range(0, len(states), ROWS):
                rows = states[start : start + ROWS].to(kind)
                picked = targets[start : start + ROWS, None]
                logits = (rows @ weights.T).float()  # [rows, vocabulary]
                norm = logits.logsumexp(dim=-1, keepdim=True)
                total += (norm - logits.gather(1, picked)).sum()
                grad = logits.sub_(norm).exp_()
                grad.scatter_add_(1, picked, torch.full_like(norm, -1.0))
                grad = grad.to(kind)
                grad_states[start : start + ROWS] = grad @ weights
                grad_head += grad.T @ rows
        ctx.save_for_backward(grad_states, grad_head)  # type: ignore[attr-defined]
        return total / len(states)

    @staticmethod
    def backward(ctx: FunctionCtx, scale: Tensor) -> tuple[Tensor, Tensor, None]:  # type: ignore[override]
        grad_states, grad_head = ctx.saved_tensors  # type: ignore[attr-defined]
        scale = scale / len(grad_states)
        return grad_states * scale, grad_head * scale, None


def cross_entropy(states: Tensor, head: Tensor, targets: Tensor) -> Tensor:
    """Mean nats of targets [rows] under states [rows, hidden] @ head [vocabulary, hidden].T."""
    return _ChunkedCrossEntropy.apply(states, head, targets)
