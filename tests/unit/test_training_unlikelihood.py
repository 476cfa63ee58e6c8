"""The stage against loops: what it takes for one, what it penalises, and that the penalty works."""

import copy
import json
import random
from pathlib import Path

import numpy as np
import pytest
import torch

from training import evaluate, unlikelihood
from training.generate import continue_all
from training.model import Decoder, Shape
from training.tokenizer import end_id
from training.train import Rows, optimisers
from training.unlikelihood import Loop, find_loop

SHAPE = Shape(hidden=64, layers=1, heads=1, kv_heads=1, intermediate=64, vocabulary=96)
END = end_id(SHAPE.vocabulary)
SOURCES = Path(unlikelihood.__file__).parent


@pytest.fixture
def model() -> Decoder:
    torch.manual_seed(0)
    made = Decoder(SHAPE)
    for parameter in made.parameters():
        parameter.data.add_(torch.randn_like(parameter), alpha=0.1)
    return made


@pytest.fixture
def rows(tmp_path: Path) -> Rows:
    data = np.random.default_rng(0).integers(0, END, (6, 513)).astype(np.uint16)
    data[:, 60] = END
    data.tofile(tmp_path / "rows.bin")
    (tmp_path / "rows.json").write_text(json.dumps({"width": 513, "rows": 6}))
    return Rows(tmp_path / "rows")


@pytest.mark.parametrize("period", [1, 2, 7, 10, 11, 24, 50])
def test_a_loop_is_found_where_it_is_first_complete(period: int) -> None:
    before = list(range(100, 117))
    tokens = before + list(range(period)) * (200 // period + 1)
    loop = find_loop(tokens)
    size = max(3 * period, 30)
    assert loop == Loop(start=17, period=period, end=17 + size)
    assert evaluate.is_loop(tokens[: loop.end])
    assert not any(evaluate.is_loop(tokens[:end]) for end in range(loop.end))
    spared = max(period, unlikelihood.SPARED)
    assert list(loop.repeated()) == list(range(17 + spared, 17 + size))


def test_loops_are_found_where_is_loop_sees_them() -> None:
    rng = random.Random(0)
    for _ in range(300):
        piece = [rng.randrange(3) for _ in range(rng.randint(1, 12))]
        times = rng.randint(1, 8)
        tokens = [rng.randrange(3) for _ in range(rng.randint(0, 20))] + piece * times
        tokens += [rng.randrange(3) for _ in range(rng.randint(0, 5))]
        ends = [end for end in range(len(tokens) + 1) if evaluate.is_loop(tokens[:end])]
        loop = find_loop(tokens)
        assert (loop.end if loop else None) == (ends[0] if ends else None)


@pytest.mark.parametrize("name", ["unlikelihood.py", "model.py", "train.py", "packages.toml"])
def test_code_that_repeats_as_code_does_is_no_loop(name: str) -> None:
    assert find_loop(list((SOURCES / name).read_bytes())) is None


def test_two_repetitions_or_a_short_one_are_no_loop() -> None:
    assert find_loop(list(range(40)) * 2) is None
    assert find_loop([1, 2] * 14) is None
    assert find_loop([1] * 29 + [2] * 29) is None
    assert find_loop(list(range(51)) * 4) is None
    assert find_loop([]) is None


def test_pieces_of_the_data_hold_no_special_tokens_and_repeat_with_their_seed(rows: Rows) -> None:
    pieces = unlikelihood.plain_pieces(rows, 8, 200, END, [1, 2])
    assert pieces.shape == (8, 200)
    assert int(pieces.max()) < END
    assert pieces.equal(unlikelihood.plain_pieces(rows, 8, 200, END, [1, 2]))
    assert not pieces.equal(unlikelihood.plain_pieces(rows, 8, 200, END, [1, 3]))


def test_own_loops_are_the_greedy_continuations_that_loop_cut_there(model: Decoder) -> None:
    prompts = torch.randint(0, END, (6, 20))
    made = continue_all(model, prompts.tolist(), 90, stop=-1)
    wanted = {}
    for prompt, continuation in zip(prompts.tolist(), made, strict=True):
        loop = find_loop(continuation)
        if loop and END not in continuation[: loop.end]:
            wanted[tuple(prompt + continuation[: loop.end])] = loop
    found = unlikelihood.own_loops(model, prompts, 90, END)
    assert wanted, "an untrained model loops"
    assert {tuple(tokens): loop for tokens, loop in found} == wanted


def test_the_penalty_is_the_lead_over_the_best_rival() -> None:
    torch.manual_seed(0)
    states, head = torch.randn(5, 8), torch.randn(11, 8)
    tokens = torch.tensor([0, 3, 3, 7, 10])
    scores = (states @ head.T).log_softmax(dim=-1)
    for margin in (0.0, 2.0):
        made = unlikelihood.penalty(states, head, tokens, margin)
        for row, token in enumerate(tokens.tolist()):
            rival = max(float(s) for at, s in enumerate(scores[row]) if at != token)
            wanted = max(0.0, float(scores[row, token]) - rival + margin)
            assert float(made[row]) == pytest.approx(wanted, abs=1e-5)


def test_a_step_makes_the_weakest_repeated_tokens_less_likely_and_leaves_the_embedding(
    model: Decoder,
) -> None:
    model.embed.weight.requires_grad_(False)
    before = model.embed.weight.clone()
    prompt = torch.randint(0, END, (70,)).tolist()
    loop = Loop(start=0, period=12, end=36)
    tokens = prompt + prompt[:12] * 3
    costs = []
    muon, adam = optimisers(model, 0.003, 0.001)
    for _ in range(4):
        loss = unlikelihood.loop_loss(model, [(tokens, loop)] * 2, margin=20.0, weakest=24)
        costs.append(float(loss.detach()))
        loss.backward()
        for optim in (muon, adam):
            optim.step()
            optim.zero_grad(set_to_none=True)
    assert costs == sorted(costs, reverse=True)
    assert costs[-1] < costs[0] - 0.1
    assert model.embed.weight.equal(before)


def test_several_loops_in_one_row_cost_what_each_costs_alone(model: Decoder) -> None:
    several = []
    for period in (9, 12):
        prompt = torch.randint(0, END, (80,)).tolist()
        size = max(30, 3 * period)
        several.append((prompt + (prompt[:period] * 4)[:size], Loop(0, period, size)))
    alone = sum(unlikelihood.loop_loss(model, [one], 9.0, 2) for one in several)
    torch.testing.assert_close(unlikelihood.loop_loss(model, several, 9.0, 2), alone)
    assert float(alone.detach()) > 0


def test_the_anchor_is_nothing_at_the_start_and_pulls_back_later(model: Decoder) -> None:
    start = copy.deepcopy(model).requires_grad_(False)
    batch = torch.randint(0, END, (1, 101))
    assert unlikelihood.anchor(model, start, batch, 1) == pytest.approx(0.0, abs=1e-5)
    assert all(float(p.grad.norm()) < 1e-4 for p in model.layers.parameters() if p.grad is not None)
    model.zero_grad()
    model.layers[0].out.weight.data.add_(0.3)
    away = unlikelihood.anchor(model, start, batch, 1)
    assert away > 0.001
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.sub_(parameter.grad, alpha=0.01)
    assert unlikelihood.anchor(model, start, batch, 1) < away


def test_the_command_stops_resumes_and_writes_a_run(
    model: Decoder, rows: Rows, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("training.train.RUNS", tmp_path / "runs")
    unlikelihood.Run("source").save_weights(model, tokens=7)
    arguments = ["--run", "source", "--branch", "stage", "--data", str(tmp_path / "rows")]
    arguments += ["--batch", "512", "--prompts", "4", "--limit", "40", "--threads", "1"]
    for minutes in ("0.01", "0.02"):
        monkeypatch.setattr("sys.argv", ["unlikelihood", *arguments, "--minutes", minutes])
        unlikelihood.main()
        saved = unlikelihood.Run("stage").load()
        assert saved is not None
        assert saved["seconds"] >= 60 * float(minutes)
    log = (tmp_path / "runs/stage/log.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in log]
    assert steps == list(range(1, saved["step"] + 1))
    assert saved["positions"] == {"rows": saved["step"]}
    assert saved["start"]["norm.weight"].equal(model.norm.weight)
    assert saved["model"]["embed.weight"].equal(model.embed.weight)
    assert not saved["model"]["norm.weight"].equal(model.norm.weight)
