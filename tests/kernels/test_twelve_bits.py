"""bf16 weights in twelve bits: nothing is lost, and every row has the bits it has in sixteen."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
from atlasd_kernels.cpu import CpuDecoder
from atlasd_kernels.cpu.library import native
from atlasd_kernels.cpu.packing import (
    BF16,
    TWELVE,
    Part,
    Piece,
    pack_matrix,
    pack_part,
    part_bytes,
    zeroed,
)

from tests.kernels.conftest import ISAS
from tests.kernels.raw_weights import KINDS, SPEC, bits, trained, weights

pytestmark = pytest.mark.skipif("avx512" not in ISAS, reason="only AVX-512 reads twelve bits")


def shortened(matrix: np.ndarray) -> tuple[np.ndarray, int]:
    """A part's bytes, and how many of them are used; 0: it stays in sixteen bits."""
    part = Part((Piece("w"),), matrix.shape[0], matrix.shape[1], "bf16")
    room = part_bytes(part, 2)
    data = zeroed(room + 4096)
    used, kept = pack_part(part, room, {"w": matrix}, data, 2, TWELVE)
    return data, used if kept else 0


@pytest.mark.parametrize("shape", [(64, 64), (77, 320), (300, 896)])
@pytest.mark.parametrize("kind", KINDS)
def test_every_weight_comes_back_as_it_was(kind: str, shape: tuple[int, int]) -> None:
    matrix = weights(kind, shape)
    data, used = shortened(matrix)
    assert 0 < used < 0.95 * 2 * -(-shape[0] // 32) * 32 * shape[1]
    out = np.zeros(shape[1], np.float32)
    for column in range(shape[0]):
        native().unpack_column(TWELVE, data.ctypes.data, shape[1], column, out.ctypes.data)
        assert np.array_equal(out.view(np.uint32), matrix[column].astype(np.uint32) << 16)


@pytest.mark.parametrize("k", [8, 60, 100, 129])
def test_rows_of_weights_end_anywhere(k: int) -> None:
    """What they are filled up with is zeros, which are kept in sixteen bits."""
    matrix = weights("trained", (70, k))
    part = Part((Piece("w"),), 70, k, "bf16")
    whole = zeroed(part_bytes(part, 2))
    pack_matrix(part, {"w": matrix}, whole, 1)
    data, used = shortened(matrix)
    out = np.zeros(k, np.float32)
    for column in range(96):
        if used:
            native().unpack_column(TWELVE, data.ctypes.data, k, column, out.ctypes.data)
        else:
            native().unpack_column(BF16, data.ctypes.data, k, column, out.ctypes.data)
        wanted = matrix[column] if column < 70 else np.zeros(k, np.uint16)
        assert np.array_equal(out.view(np.uint32), wanted.astype(np.uint32) << 16)
    assert (used > 0) == (k != 8)


def test_a_trained_matrix_takes_three_quarters() -> None:
    matrix = weights("trained", (320, 896))
    assert shortened(matrix)[1] < 0.765 * matrix.nbytes


def test_a_matrix_that_would_gain_little_stays_as_it_is() -> None:
    random = np.random.default_rng(3)
    matrix = random.integers(0, 2**16, (64, 320)).astype(np.uint16)
    data, used = shortened(matrix)
    assert used == 0
    whole = zeroed(matrix.nbytes)
    pack_matrix(Part((Piece("w"),), 64, 320, "bf16"), {"w": matrix}, whole, 1)
    assert np.array_equal(data[: matrix.nbytes], whole)


def tensors(kind: str) -> dict[str, np.ndarray]:
    s = SPEC
    shapes: dict[str, tuple[int, int]] = {"model.embed_tokens.weight": (s.vocab_size, 320)}
    for i in range(s.layers):
        at = f"model.layers.{i}."
        for name, rows in (("q", 256), ("k", 128), ("v", 128)):
            shapes[f"{at}self_attn.{name}_proj.weight"] = (rows, 320)
        shapes[f"{at}self_attn.o_proj.weight"] = (320, 256)
        shapes |= {f"{at}mlp.{name}_proj.weight": (896, 320) for name in ("gate", "up")}
        shapes[f"{at}mlp.down_proj.weight"] = (320, 896)
    found = {name: weights(kind, shape) for name, shape in shapes.items()}
    if kind == "a huge one in the head":
        found["model.embed_tokens.weight"][300, 7] = bits(np.array([3e37]))[0]
    random = np.random.default_rng(4)
    for i in range(s.layers):
        at = f"model.layers.{i}."
        for name, rows in (("q", 256), ("k", 128), ("v", 128)):
            found[f"{at}self_attn.{name}_proj.bias"] = trained(random, (1, rows))[0]
        for name in ("input_layernorm", "post_attention_layernorm"):
            found[f"{at}{name}.weight"] = np.full(320, 0x3F80, np.uint16)
    return found | {"model.norm.weight": np.full(320, 0x3F80, np.uint16)}


def decoder(kind: str, monkeypatch: pytest.MonkeyPatch, *, short: bool) -> CpuDecoder:
    """The same kernels over weights in twelve bits, or, as if they could not read those, not."""
    with monkeypatch.context() as patch:
        if not short:
            patch.setattr(native(), "kept_format", lambda isa: BF16)
        made = CpuDecoder(
            SPEC, tensors(kind), weight_format="bf16", slot_tokens=128, threads=1, isa="avx512"
        )
    parameters = sum(t.size for t in tensors(kind).values())
    assert (made.memory_bytes()["weights"] < 1.8 * parameters) == short
    return made


@pytest.mark.parametrize(
    "kind", ["trained", "zeros", "denormals", "panels apart", "a huge one in the head"]
)
def test_rows_have_the_bits_they_have_in_sixteen(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    short, whole = (decoder(kind, monkeypatch, short=s) for s in (True, False))
    every = np.arange(128, dtype=np.int32)
    wanted = whole.forward(every + 5, every * 0, every, every).copy()
    assert np.isfinite(wanted).all()
    for count in range(1, 65):
        for begin in range(0, 128 - count, count):
            some = every[begin : begin + count]
            found = short.forward(some + 5, some * 0, some, some - begin)
            assert np.array_equal(found.view(np.uint32), wanted[some].view(np.uint32)), count


def test_threads_share_out_panels_of_different_lengths(monkeypatch: pytest.MonkeyPatch) -> None:
    one = decoder("zeros", monkeypatch, short=True)
    three = CpuDecoder(
        SPEC, tensors("zeros"), weight_format="bf16", slot_tokens=128, threads=3, isa="avx512"
    )
    every = np.arange(20, dtype=np.int32)
    for count in (1, 3, 9, 20):
        some = every[:count]
        wanted = one.forward(some + 5, some * 0, some, some)
        assert np.array_equal(three.forward(some + 5, some * 0, some, some), wanted)


def test_a_file_serves_the_instruction_sets_that_read_it(tmp_path: Path) -> None:
    """Weights in twelve bits and in sixteen lie beside each other; each set finds its own."""
    spec = dataclasses.replace(SPEC, max_positions=128)
    for isa in ("avx512", "avx2", "avx512", "avx2"):
        made = CpuDecoder(
            spec,
            tensors("trained"),
            weight_format="bf16",
            threads=1,
            isa=isa,
            cache_dir=tmp_path,
            identity="both",
        )
        row = np.zeros(1, np.int32)
        assert np.isfinite(made.forward(row, row, row, row)).all()
    sizes = sorted(path.stat().st_size for path in tmp_path.iterdir())
    assert len(sizes) == 2
    assert sizes[0] < 0.8 * sizes[1]


def test_a_reduced_head_is_taken_from_twelve_bits(monkeypatch: pytest.MonkeyPatch) -> None:
    from atlasd_kernels.cpu import draft_chain

    tokens = np.arange(0, 333, 3, dtype=np.int32)
    drafts = [
        draft_chain(decoder("trained", monkeypatch, short=s), [3], 0, 0, 12, head_tokens=tokens)
        for s in (True, False)
    ]
    assert np.array_equal(drafts[0].tokens, drafts[1].tokens)
    assert np.array_equal(drafts[0].probabilities, drafts[1].probabilities)
