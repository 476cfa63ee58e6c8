"""Runs of training.stopping from end to end: killed and gone on with, they lose nothing."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.unit.test_training_model import shaken
from training import circles, stopping, train
from training.circles import END, OPEN, TEXT
from training.lesson import Sums
from training.model import Decoder, Shape
from training.tokenizer import end_id
from training.train import Run, optimisers

SHAPE = Shape(hidden=32, layers=4, heads=2, kv_heads=1, intermediate=64, vocabulary=96, head_dim=32)
STEPS, BEFORE = 14, 7
OPTIONS = ("--batch", "256", "--share", "0.25", "--decay-steps", str(STEPS))

GoOn = Callable[..., dict[str, Any]]


class Killed(Exception):
    pass


class Glances:
    """In place of the watch, whose pieces are of the corpus; the process dies at the last look."""

    def __init__(self, last: int) -> None:
        self.left = last

    def __call__(self, model: Decoder) -> str:
        self.left -= 1
        if not self.left:
            raise Killed
        return "looked"


def write_rows(folder: Path) -> None:
    rng = np.random.default_rng(0)
    data = rng.integers(0, 80, (11, 97))
    data.astype(np.uint16).tofile(folder / "data.bin")
    (folder / "data.json").write_text(json.dumps({"rows": 11, "width": 97}))
    turning = [[*rng.integers(0, 80, 5), *np.resize(rng.permutation(80)[:9], 60)] for _ in range(7)]
    circles.write(folder / "rounds", turning, [[TEXT] * 9 + [OPEN] * 26 + [END] * 30] * 7)


def write_start() -> None:
    """A run of `training.train` that was just decayed, at rates and a momentum not to be kept."""
    model = shaken(Decoder(SHAPE))
    optims = optimisers(model, lr=0.5, embed_lr=0.5)
    model.logits(torch.randint(0, 80, (1, 20))).logsumexp(dim=-1).sum().backward()
    for optim in optims:
        optim.step()
    optims[0].param_groups[0]["momentum"] = 0.85
    states = [optim.state_dict() for optim in optims]
    start = {"shape": SHAPE.to_dict(), "model": model.state_dict(), "optimisers": states}
    counts = {"step": BEFORE, "tokens": 1000, "seconds": 2.5, "decayed": STEPS}
    Run("start").save({**start, **counts, "positions": {"data": 5, "older": 3}})


@pytest.fixture
def go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> GoOn:
    """go_on(run, seed, last look) calls the command as if in a process of its own; the checkpoint
    that it leaves."""
    monkeypatch.setattr(train, "RUNS", tmp_path / "runs")
    write_rows(tmp_path)
    write_start()
    rows = ["--data", str(tmp_path / "data"), "--circles", str(tmp_path / "rounds")]
    # Less than no minutes: saved and looked at after every step.
    often = ["--save-minutes", "-1", "--watch-minutes", "-1"]

    def call(to: str, seed: int = 0, last: int = 0) -> dict[str, Any]:
        command = ["stopping", "--run", "start", "--to", to, *rows, *OPTIONS, *often]
        monkeypatch.setattr(sys, "argv", command)
        monkeypatch.setattr(stopping, "Watch", lambda _: Glances(last))
        torch.manual_seed(seed)
        if last:
            with pytest.raises(Killed):
                stopping.main()
        else:
            stopping.main()
        saved = Run(to).load()
        assert saved is not None
        return saved

    return call


def test_a_killed_run_comes_to_what_it_would_have_come_to(go_on: GoOn) -> None:
    whole = go_on("whole")
    killed = go_on("killed", last=6)
    assert (killed["step"], killed["decayed"]) == (BEFORE + 5, 5)
    resumed = go_on("killed", seed=1)
    assert list(resumed) == list(whole)
    for part in whole:
        torch.testing.assert_close(resumed[part], whole[part], rtol=1e-4, atol=1e-6, msg=part)


def test_a_new_run_begins_its_own_decay_at_its_own_rates(
    go_on: GoOn, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = go_on("new")
    assert (saved["step"], saved["decayed"]) == (BEFORE + STEPS, STEPS)
    assert (saved["tokens"], saved["seconds"]) == (1000 + 256 * STEPS, 2.5)
    assert saved["positions"] == {"data": 5 + 2 * STEPS, "older": 3, "rounds": STEPS}
    groups = [*saved["optimisers"][0]["param_groups"], *saved["optimisers"][1]["param_groups"]]
    rates = [group["lr"] * STEPS for group in [*groups, *saved["reading"]["param_groups"]]]
    assert rates == pytest.approx([0.006, 0.0008, 0.0008, 0.003])
    assert groups[0]["momentum"] == 0.95
    lines = capsys.readouterr().out.splitlines()
    end = end_id(SHAPE.vocabulary)
    assert f"2 rows of the data and 1 of circles a step, 256 tokens; end {end}" in lines
    assert lines.count("looked") == 1 + STEPS + 1
    assert json.loads(lines[-1]) == saved["positions"]
    log = [json.loads(line) for line in (Run("new").folder / "log.jsonl").read_text().splitlines()]
    assert [entry["step"] for entry in log] == [10, 20]
    assert [entry["lr"] for entry in log] == pytest.approx([12 / STEPS, 2 / STEPS])
    assert [entry["rows"] for entry in log] == [3 * 3, 10 * 3]
    assert [*log[0]] == ["step", "tokens", "lr", *Sums._fields]
    assert log[1]["text"] / log[1]["texts"] < log[0]["text"] / log[0]["texts"]


def test_a_run_that_is_not_there_is_named_and_nothing_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(train, "RUNS", tmp_path)
    options = ["--run", "strat", "--to", "new", "--data", "d", "--circles", "c"]
    monkeypatch.setattr(sys, "argv", ["stopping", *options])
    with pytest.raises(SystemExit, match="no run strat"):
        stopping.main()
    assert not list(tmp_path.iterdir())
