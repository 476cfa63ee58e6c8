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
from training.muon import Muon
from training.tokenizer import end_id


def keep_memory() -> None:
    """Have glibc keep what is freed (elsewhere: nothing): activations are megabytes each, to have
    them from the system again in every step costs a tenth of it in page faults."""
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        for option in (-1, -3):  # M_TRIM_THRESHOLD, M_MMAP_THRESHOLD
            mallopt(option, 1 << 30)


def backward(model: Decoder, batch: Tensor, parts: int) -> float:
    """Add the gradients of batch [rows, width] over `parts`; returns the loss in nats per token."""
    states = model.hidden(batch[:, :-1], end_id(model.shape.vocabulary))
    targets = batch[:, 1:].reshape(-1)
    loss = cross_entropy(states.flatten(0, 1), model.embed.weight, targets) / parts
    loss.backward()
    return float(loss.detach())


class Workers:
    """`count` processes, this one included; call `step` once per step.

    Every process adds up the gradients of some layers and steps their matrices with Muon; the rest
    (embedding, norms, biases) is left to this process and its own optimiser.
    """

    def __init__(
        self, model: Decoder, muon: Muon, read: Callable[[int, int], Tensor], count: int
    ) -> None:
        """`read(position, rows)` gives tokens; it must work in a forked process."""
        torch.set_num_threads(1)
        keep_memory()
        model.share_memory()
        muon.share_memory()
        self.model, self.muon, self.read = model, muon, read
        self.parameters = list(model.parameters())
        matrices = [[p for p in layer.parameters() if p.ndim == 2] for layer in model.layers]
        self.mine = [{id(p) for layer in matrices[n::count] for p in layer} for n in range(count)]
        self.mine[0] |= {id(p) for p in self.parameters} - set().union(*self.mine)
        self.grads = [
            [torch.zeros_like(p).share_memory_() for p in model.parameters()] for _ in range(count)
        ]
        self.losses = torch.zeros(count).share_memory_()
        context = mp.get_context("fork")
        self.barrier = context.Barrier(count)
        self.job = context.Array(ctypes.c_long, 4)  # next part, parts, rows per part, first row
        self.rates = context.Array(ctypes.c_double, 2)  # of Muon: learning rate, momentum
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
            self._step(number)
            self.barrier.wait()

    def _step(self, number: int) -> None:
        """This process's share of the micro-batches, then of the matrices."""
        self._work(number)
        self.barrier.wait()
        for at, parameter in enumerate(self.parameters):
            if id(parameter) in self.mine[number]:
                total = parameter.grad
                for grads in self.grads:
                    if grads[at] is not total:
                        total += grads[at]
        group = self.muon.param_groups[0]
        group["lr"], group["momentum"] = self.rates
        self.muon.step(only=self.mine[number])

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

    def step(self, position: int, parts: int, rows: int, rate: float, momentum: float) -> float:
        """Step the matrices on parts x rows rows; returns the loss, leaves the rest's `.grad`."""
        self.rates[:] = [rate, momentum]
        with self.job.get_lock():
            self.job[:] = [0, parts, rows, position]
        self.barrier.wait()
        self._step(0)
        self.barrier.wait()
        return float(self.losses.sum())

    def clear(self) -> None:
        for grads in self.grads:
            for grad in grads:
                grad.zero_()

    def close(self) -> None:
        for process in self.processes:
            process.terminate()
            process.join()
