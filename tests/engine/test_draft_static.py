"""Static drafters from real checkpoints: native chains against rows, and which are refused."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from atlasd_kernels import cpu
from safetensors.numpy import save_file

from atlasd.draft.drafter import StreamView
from atlasd.draft.neural import Neural
from atlasd.draft.static import _RowChain, chain_model, find_static, static_or_none
from atlasd.models.load import LoadOptions, load_decoder
from atlasd.models.locate import folder_model
from atlasd.paths import paths
from tests.engine.tiny import HIDDEN, tiny_checkpoint

NATIVE, REASON = cpu.available()
needs_native = pytest.mark.skipif(not NATIVE, reason=f"no native kernels: {REASON}")


@needs_native
@pytest.mark.parametrize("temperature", [0.0, 0.9])
@pytest.mark.parametrize("head", [None, np.arange(100, 300, dtype=np.int32)])
def test_native_chains_are_what_rows_give(
    tmp_path: Path, temperature: float, head: np.ndarray | None
) -> None:
    files = folder_model(tiny_checkpoint(tmp_path / "model"), name="tiny")
    options = LoadOptions(slots=2, slot_tokens=128, threads=1)
    decoder = load_decoder(files, options).decoder
    drafts = []
    for model in (chain_model(decoder, head), _RowChain(decoder, head)):
        drafter = Neural(model)
        drafter.least = 0.0
        stream = StreamView(1, list(range(3, 40)), 37, None, None, temperature=temperature, seed=7)
        drafter.begin(stream)
        first = drafter.propose(stream, [], 6)
        stream.tokens.extend([*first.tokens[:3], 11])
        second = drafter.propose(stream, [5], 6)
        drafts.append((first.tokens, second.tokens))
        drafter.end(stream)
    assert drafts[0] == drafts[1]
    assert len(drafts[0][0]) == 6
    if head is not None:
        assert set(drafts[0][0]) <= set(head.tolist())
    decoder.close()


@needs_native
def test_a_drafter_on_a_cpu_takes_a_quarter_of_its_targets_bytes(tmp_path: Path) -> None:
    target = folder_model(tiny_checkpoint(tmp_path / "target"), name="bundled", source="bundled")
    (tiny_checkpoint(tmp_path / "drafter") / "draft_head.json").write_text('{"token_ids": [1]}')
    folders = paths({"ATLASD_HOME": str(tmp_path)})
    drafter = static_or_none(target, "x", folders, slots=1)
    assert drafter is not None
    whole = load_decoder(target, LoadOptions(slots=1, slot_tokens=128, threads=1)).decoder
    drafts, serves = (one.memory_bytes()["weights"] for one in (drafter.model, whole))
    assert drafts < 0.55 * serves
    whole.close()


def test_a_bundled_drafter_is_found_beside_its_target(tmp_path: Path) -> None:
    target = folder_model(tiny_checkpoint(tmp_path / "target"), name="bundled")
    target = replace(target, source="bundled")
    assert find_static(target, "x") is None
    drafter = tiny_checkpoint(tmp_path / "drafter")
    (drafter / "draft_head.json").write_text(json.dumps({"token_ids": [1, 2, 3]}))
    found = find_static(target, "x")
    assert found is not None
    assert found.path == drafter
    loaded = static_or_none(target, "x", paths({"ATLASD_HOME": str(tmp_path)}), slots=2)
    assert loaded is not None
    assert 0 < loaded.token_ms < 1000
    assert not loaded.model.carries
    save_file({"weight": np.zeros((HIDDEN, HIDDEN), np.float32)}, drafter / "carry.safetensors")
    carrying = static_or_none(target, "x", paths({"ATLASD_HOME": str(tmp_path)}), slots=2)
    assert carrying is not None
    assert carrying.model.carries == NATIVE
    (drafter / "model.safetensors").write_bytes(b"damaged")
    assert static_or_none(target, "x", paths({"ATLASD_HOME": str(tmp_path)}), slots=2) is None
