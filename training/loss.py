"""Cross-entropy over a large vocabulary without ever holding the logits of a whole batch."""

import torch
from torch import Tensor
from torch.autograd.function import FunctionCtx

# Of one chunk: 8 MB of logits, worked on in place while a cache still has them; a GPU wants more.
ROWS, DEVICE_ROWS = 256, 8192


class _ChunkedCrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, states: Tensor, head: Tensor, targets: Tensor) -> Tensor:
        # On a GPU the matmuls are bf16; the logits' exponentials and sums stay fp32 everywhere.
        kind = torch.bfloat16 if states.is_cuda else states.dtype
        chunk = DEVICE_ROWS if states.is_cuda else ROWS
        weights = head.to(kind)
        grad_states = torch.empty_like(states)
        grad_head = torch.zeros_like(head)
        total = torch.zeros((), dtype=torch.float32, device=states.device)
        with torch.autocast(states.device.type, enabled=False):
            for start in range(0, len(states), chunk):
                rows = states[start : start + chunk].to(kind)
                picked = targets[start : start + chunk, None]
                logits = (rows @ weights.T).float()  # [rows, vocabulary]
                logits.sub_(logits.amax(dim=-1, keepdim=True))
                total -= logits.gather(1, picked).sum()
                grad = logits.exp_()
                sums = grad.sum(dim=-1, keepdim=True)
                total += sums.log().sum()
                grad.div_(sums).scatter_add_(1, picked, torch.full_like(sums, -1.0))
                grad = grad.to(kind)
                grad_states[start : start + chunk] = grad @ weights
                if kind == head.dtype:
                    grad_head.addmm_(grad.T, rows)  # no second matrix of the head's size
                else:
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
