"""What every kernel gives, against the references; on a CPU under the interpreter, or on a GPU."""

from __future__ import annotations

import numpy as np
import torch
from atlasd_kernels.gpu import accept, choose, matmul, residual
from atlasd_kernels.gpu.formats import Format, interleave, quantise
from atlasd_kernels.gpu.noise import gumbel_table
from atlasd_kernels.gpu.tiling import decode_tiling, prefill_tiling

from atlasd.engine.inprocess import Outputs, request
from atlasd.engine.planning import Planning
from atlasd.engine.protocol import Sampling
from atlasd.engine.sampling import choose_row, top_choices
from atlasd.engine.steps import Engine
from atlasd.models.cuda_decoder import CudaDecoder
from tests.engine.oracle import OracleController


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def matmul_values(
    kind: Format, count: int, n: int, k: int, device: str, *, prefill: bool = False
) -> None:
    """Sums over splits, and the epilogue, in the type that the device computes in."""
    dtype = torch.bfloat16 if device == "cuda" and kind != "fp32" else torch.float32
    x = random(count, k, seed=1).to(device, dtype)
    weight = quantise((random(n, k) * 0.1).to(device), kind)
    tiling = prefill_tiling(kind) if prefill else decode_tiling(n, k, kind, whole=False)
    sums = torch.full((tiling.splits, count, n), torch.nan, device=device)
    matmul.matmul(x, weight, sums, tiling, count=count)
    expected = matmul.reference(x, weight)
    torch.testing.assert_close(sums.sum(0), expected, atol=1e-3, rtol=1e-4)

    both = quantise(interleave(random(n, k) * 0.1, random(n, k, seed=2) * 0.1).to(device), kind)
    squares = (random(count, residual.blocks(k), seed=3).abs() * k).to(device)
    out = torch.full((count, n), torch.nan, device=device, dtype=dtype)
    norm = (squares, k, 1e-6)
    whole = prefill_tiling(kind) if prefill else decode_tiling(2 * n, k, kind, whole=True)
    matmul.matmul(x, both, out, whole, count=count, norm=norm, silu=True)
    expected = matmul.reference_silu(x, both, norm).to(dtype)
    torch.testing.assert_close(out, expected, atol=1e-3, rtol=1.6e-2)


def choice_values(vocabulary: int, device: str) -> None:
    """The sampler's tokens bit for bit, and the likeliest with their log-probabilities."""
    keys = [(0, 0, 0), (2**64 - 1, 1, 7), (2**63 + 5, 0, 2**31), (9, 3, 1), (7, 0, 5), (1, 0, 0)]
    temperatures = torch.tensor([0.0, 1.0, 0.7, 2.5, 0.3, 0.0])
    logits = random(6, vocabulary) * 3
    logits[5, 100] = logits[5, vocabulary - 9] = 50
    halves = [(seed & 0xFFFFFFFF, seed >> 32, choice, index) for seed, choice, index in keys]
    noise = torch.from_numpy(np.array(halves, np.uint32).T.copy().view(np.int32)).to(device)
    out = choose.Choices(
        torch.empty(6, dtype=torch.int32, device=device),
        torch.empty(6, choose.TOP, dtype=torch.int32, device=device),
        torch.empty(6, choose.TOP, device=device),
    )
    chooser = choose.Chooser(6, vocabulary, gumbel_table(device))
    chooser.choose(logits.to(device), temperatures.to(device), noise, out, count=6)
    for row, (seed, choice, index) in enumerate(keys):
        numbers, warmth = logits[row].numpy(), float(temperatures[row])
        sampled = choose_row(numbers, warmth, seed, choice, index) if warmth else numbers.argmax()
        assert int(out.tokens[row]) == int(sampled)
    ids, logprobs = top_choices(logits.numpy(), choose.TOP)
    assert np.array_equal(out.top_ids.cpu().numpy(), ids)
    np.testing.assert_allclose(out.top_logprobs.cpu().numpy(), logprobs, atol=1e-5)


def accept_values(device: str) -> None:
    """Parts of every length, drafts that agree all the way among them."""
    draw = torch.Generator().manual_seed(0)
    rows = torch.tensor([1, 5, 64, 8, 2, 0], dtype=torch.int32)
    first = torch.tensor([0, 1, 6, 70, 78, 80], dtype=torch.int32)
    chosen = torch.randint(0, 2, (80,), generator=draw).int()
    drafted = torch.randint(0, 2, (80,), generator=draw).int()
    drafted[7:70] = chosen[6:69]
    accepted = torch.empty(6, dtype=torch.int32, device=device)
    there = (each.to(device) for each in (chosen, drafted, first, rows))
    accept.accept(*there, accepted, parts=6)
    assert torch.equal(accepted.cpu(), accept.reference(chosen, drafted, first, rows))
    assert accepted[2] == 63


def drafting_changes_nothing(decoder: CudaDecoder, prompt: list[int], tokens: int) -> None:
    """A sampled request through the engine, plain and with drafts of which some are wrong."""

    def serve(planning: Planning | None) -> tuple[list[int], int]:
        outputs = Outputs()
        engine = Engine(decoder, outputs.take, planning=planning)
        sampling = Sampling(temperature=0.8, seed=11)
        engine.submit(request(1, prompt, max_tokens=tokens, sampling=sampling))
        while engine.step():
            pass
        assert outputs[1].reason == "length", outputs[1].message
        return outputs[1].tokens, sum(outputs[1].stats.accepted.values())

    plain, _ = serve(None)
    oracle = OracleController({1: plain}, decoder.vocab_size, 0, longest=4, right=0.6)
    drafted, accepted = serve(Planning(oracle))
    assert drafted == plain
    assert accepted > 0
