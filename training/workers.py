"""Gradients from several single-threaded processes that share the parameters.

On cores that others use too, two threads of one matmul wait for each other thousands of times a
step; processes that take the next micro-batch whenever they get a core meet once a step.
"""

import ctypes
from collections.abc import Callable

import torch
from torch import Tensor
from torch import multiprocessing as mp

from training.loss import cross_entropy
from training.model import Decoder


def backward(model: Decoder, batch: Tensor, parts: int) -> float:
    """Add the gradients of batch [rows, width] over `parts`; returns the loss in nats per token."""
    states = model.hidden(batch[:, :-1])
    targets = batch[:, 1:].reshape(-1)
    loss = cross_entropy(states.flatten(0, 1), model.embed.weight, targets) / parts
    loss.backward()
    return float(loss.detach())


class Workers:
    """`count` processes, this one included; call `gradients` once per step."""

    def __init__(self, model: Decoder, read: Callable[[int, int], Tensor], count: int) -> None:
        """`read(position, rows)` gives tokens; it must work in a forked process."""
        torch.set_num_threads(1)
        model.share_memory()
        self.model, self.read, self.count = model, read, count
        self.grads = [
            [torch.zeros_like(p).share_memory_() for p in model.parameters()] for _ in range(count)
        ]
        self.losses = torch.zeros(count).share_memory_()
        context = mp.get_context("fork")
        self.barrier = context.Barrier(count)
        self.job = context.Array(ctypes.c_long, 4)  # next part, parts, rows per part, first row
        self.processes = [
            context.Process(target=self._serve, args=(number,), daemon=True)
            for number in range(1, count)
        ]
        for process in self.processes:
            process.start()
        self._adopt(0)

    def _adopt(self, number: int) -> None:
        for parameter, grad in zip(self.model.parameters(), self.grads[number], strict=True):
            parameter.grad = grad

    def _serve(self, number: int) -> None:
        torch.set_num_threads(1)
        self._adopt(number)
        while True:
            self.barrier.wait()
            self._work(number)
            self.barrier.wait()

    def _work(self, number: int) -> None:
        self.losses[number] = 0.0
        while True:
            with self.job.get_lock():
                part, parts, rows, first = self.job
                self.job[0] += 1
            if part >= parts:
                return
            batch = self.read(first + part * rows, rows)
            self.losses[number] += backward(self.model, batch, parts)

    def gradients(self, position: int, parts: int, rows: int) -> float:
        """Leave the mean gradient of parts x rows rows in our `.grad`; returns the loss."""
        with self.job.get_lock():
            self.job[:] = [0, parts, rows, position]
        self.barrier.wait()
        self._work(0)
        self.barrier.wait()
        for other in self.grads[1:]:
            for mine, theirs in zip(self.grads[0], other, strict=True):
                mine.add_(theirs)
                theirs.zero_()
        return float(self.losses.sum())

    def clear(self) -> None:
        for grad in self.grads[0]:
            grad.zero_()
