"""Gradients of a step's rows from several processes that share the parameters, for any loss.

`training.workers` has plain cross-entropy alone and steps the optimiser in parallel, too.
"""

import ctypes
from collections.abc import Callable

import torch
from torch import multiprocessing as mp
from torch import nn

from training.lesson import Sums


class Hands:
    """`count` processes, this one included, that learn `rows` rows a step, each the next one."""

    def __init__(
        self,
        modules: list[nn.Module],
        learn: Callable[[int, list[int]], Sums],
        rows: int,
        count: int,
    ) -> None:
        """learn(row of the step, where the step's rows begin) adds gradients to the modules'
        parameters; it must work in a forked process."""
        for module in modules:
            module.share_memory()
        self.learn, self.rows = learn, rows
        self.parameters = [p for module in modules for p in module.parameters()]
        context = mp.get_context("fork")
        self.next = context.Value(ctypes.c_long, 0)
        self.grads, self.pipes, self.processes = [], [], []
        for _ in range(count - 1):
            grads = [torch.zeros_like(p).share_memory_() for p in self.parameters]
            ours, theirs = context.Pipe()
            process = context.Process(target=self._serve, args=(theirs, grads), daemon=True)
            process.start()
            self.grads.append(grads)
            self.pipes.append(ours)
            self.processes.append(process)

    def _serve(self, pipe, grads) -> None:  # type: ignore[no-untyped-def]
        torch.set_num_threads(1)
        while True:
            places = pipe.recv()
            for parameter, grad in zip(self.parameters, grads, strict=True):
                parameter.grad = grad.zero_()
            pipe.send(self._work(places))

    def _work(self, places: list[int]) -> Sums:
        sums = Sums()
        while True:
            with self.next.get_lock():
                row = self.next.value
                self.next.value += 1
            if row >= self.rows:
                return sums
            sums = sums.plus(self.learn(row, places))

    def step(self, places: list[int]) -> Sums:
        """Add the gradients of a step whose rows begin there to the parameters' own."""
        self.next.value = 0
        for pipe in self.pipes:
            pipe.send(places)
        sums = self._work(places)
        for pipe, grads in zip(self.pipes, self.grads, strict=True):
            sums = sums.plus(pipe.recv())
            for parameter, grad in zip(self.parameters, grads, strict=True):
                if parameter.grad is None:
                    parameter.grad = grad.clone()
                else:
                    parameter.grad += grad
        return sums

    def close(self) -> None:
        for process in self.processes:
            process.terminate()
            process.join()
