"""The Python face of the native decoder."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from atlasd_kernels.cpu import packing
from atlasd_kernels.cpu.library import Config, Profile, check, native
from atlasd_kernels.cpu.quota import granted_processors
from atlasd_kernels.spec import DecoderSpec

Int32 = npt.NDArray[np.int32]
Float32 = npt.NDArray[np.float32]
WeightFormat = Literal["fp32", "bf16", "int8", "int4"]


class CpuDecoder:
    """A Llama-family decoder that runs whole steps in C++.

    The bits of a row depend on its slot's tokens up to its position and on nothing else: not on
    the number of rows, its place among them, its neighbours, prefill or decode, or threads.
    Not thread-safe: one call at a time.
    """

    row_independent = True
    prefill_chunk = 1
    prefill_rows = 256

    def __init__(
        self,
        spec: DecoderSpec,
        tensors: Mapping[str, npt.NDArray[Any]],
        *,
        weight_format: WeightFormat = "bf16",
        slots: int = 1,
        slot_tokens: int = 2048,
        threads: int | None = None,
        cache_dir: Path | None = None,
        identity: str | None = None,
        isa: str | None = None,
    ) -> None:
        """Pack the weights, or map them from the cache.

        ``tensors`` maps Hugging Face's names to float32, float16 or raw bfloat16 (uint16) arrays;
        it is only read while packing. ``identity`` names the source (a hash of the checkpoint,
        say) in the cache in ``cache_dir``; without either of the two nothing is cached.
        ``threads`` None: measured. ``isa`` forces one of ``instruction_sets()``.
        """
        self.spec = spec
        self.weight_format = weight_format
        self.vocab_size = spec.vocab_size
        self.slots = slots
        self.slot_tokens = min(slot_tokens, spec.max_positions)
        self.threads = threads if threads is not None else measure_threads()
        self._handle = ctypes.c_void_p()
        self._reduced: Int32 | None = None
        self._states: Float32 | None = None
        self.states: Float32 | None = None
        """[L, hidden] of the last call's logits rows, valid until the next; see ``keep_states``."""
        self.carries = False
        packed, kind = packing.load_packed(
            spec,
            tensors,
            weight_format,
            threads=self.threads,
            isa=isa,
            cache_dir=cache_dir,
            identity=identity,
        )
        cos, sin = rope_tables(spec, self.slot_tokens)
        windows = np.array([w or 0 for w in spec.sliding_window or [0] * spec.layers], np.int32)
        offsets = np.array(packed.offsets, np.int64)
        self._blob = packed.blob
        config = Config(
            vocab=spec.vocab_size,
            hidden=spec.hidden_size,
            layers=spec.layers,
            heads=spec.heads,
            kv_heads=spec.kv_heads,
            head_dim=spec.head_dim,
            intermediate=spec.intermediate_size,
            slots=slots,
            slot_tokens=self.slot_tokens,
            threads=self.threads,
            qk_norm=spec.qk_norm,
            half_cache=weight_format != "fp32",
            format=packing.FORMATS[weight_format],
            head_format=packing.FORMATS[packing.HEAD_FORMATS[weight_format]],
            embedding_source=kind,
            rms_eps=spec.rms_eps,
            isa=isa.encode() if isa else None,
            windows=windows.ctypes.data,
            cos=cos.ctypes.data,
            sin=sin.ctypes.data,
            weights=self._blob.ctypes.data,
            offsets=offsets.ctypes.data,
        )
        check(native().create(ctypes.byref(config), ctypes.byref(self._handle)))
        self._forward = native().forward
        self._logits_ld: int = native().logits_ld(self._handle)
        self._make_logits(0)
        self._make_rows(64)
        self.isa: str = native().isa_of(self._handle).decode()

    @property
    def handle(self) -> ctypes.c_void_p:
        """The native decoder, for the other native calls; raises once it is closed."""
        if not self._handle:
            raise RuntimeError("the decoder is closed")
        return self._handle

    def bucket(self, rows: int) -> int:
        """The row count that ``rows`` are padded to; any number is its own bucket here."""
        return rows

    def forward(
        self, tokens: Int32, slots: Int32, positions: Int32, wanted: Int32, *, prefill: bool = False
    ) -> Float32:
        """Run rows [R] and return logits [L, vocab] of the rows indexed by ``wanted``.

        Rows of one slot come in ascending positions; keys and values are written before attention,
        so a row sees the earlier rows of its slot in the same call. The array is valid until the
        next call. ``prefill`` changes nothing here: the bits are the same either way.
        """
        # A step empties the caches: what runs here runs cold, at several times its cost.
        count, asked = len(tokens), len(wanted)
        if not len(slots) == len(positions) == count:
            raise ValueError("tokens, slots and positions must be of one length")
        if count > self._room or asked > self._room:
            self._make_rows(max(count, asked))
        if asked > self._logits_room:
            self._make_logits(asked)
            self._place_states()
        rows, at = self._rows, self._addresses
        rows[0, :count], rows[1, :count], rows[2, :count] = tokens, slots, positions
        rows[3, :asked] = wanted
        handle = self._handle or self.handle
        error = self._forward(
            handle, at[0], at[1], at[2], count, at[3], asked, self._logits_address
        )
        if error is not None:
            if not (wanted[1:] > wanted[:-1]).all():
                return self._forward_unordered(tokens, slots, positions, wanted)
            check(error)
        if self._states is not None:
            self.states = self._states[:asked]
        return self._logits[:asked, : self.vocab_size]

    def _forward_unordered(
        self, tokens: Int32, slots: Int32, positions: Int32, wanted: Int32
    ) -> Float32:
        """The same where the library refuses ``wanted``, whose rows come out of order or twice."""
        ordered, places = np.unique(wanted, return_inverse=True)
        logits = self.forward(tokens, slots, positions, ordered)
        if self.states is not None:
            self.states = self.states[places]
        return logits[places]

    def _make_rows(self, count: int) -> None:
        """Arrays for tokens, slots, positions and wanted rows, whose addresses are asked for once:
        asking costs as much as a small layer."""
        self._room = count
        self._rows = np.empty((4, count), np.int32)
        first = self._rows.ctypes.data
        self._addresses = tuple(first + 4 * count * number for number in range(4))

    def _make_logits(self, rows: int) -> None:
        self._logits_room = rows
        self._logits = np.empty((rows, self._logits_ld), np.float32)
        self._logits_address = self._logits.ctypes.data

    def logits_of(self, rows: int) -> int:
        """The address of the array that ``forward`` leaves logits in, with room for so many rows;
        for other native calls."""
        if rows > self._logits_room:
            self._make_logits(rows)
            self._place_states()
        return self._logits_address

    @property
    def states_address(self) -> int:
        """Where ``forward`` leaves states (``keep_states``); 0: it does not."""
        address: int = self._states.ctypes.data if self._states is not None else 0
        return address

    def keep_states(self) -> None:
        """Have ``forward`` leave the final normalised states of its logits' rows in ``states``."""
        self._states = np.empty((0, self.spec.hidden_size), np.float32)
        self._place_states()

    def _place_states(self) -> None:
        if self._states is not None:
            self._states = np.empty((len(self._logits), self.spec.hidden_size), np.float32)
            native().keep_states(self.handle, self._states.ctypes.data)

    def set_carry(self, weight: Float32) -> None:
        """Have the state that chose a token add to the state after it, mapped by ``weight``
        [hidden, hidden] (out, in): along chains, and where ``chose`` is given."""
        hidden = self.spec.hidden_size
        if weight.shape != (hidden, hidden):
            raise ValueError(f"what is carried is mapped by {weight.shape}, not {(hidden, hidden)}")
        native().set_carry(self.handle, np.ascontiguousarray(weight, np.float32).ctypes.data)
        self.carries = True

    def set_smear(self, weight: Float32) -> None:
        """Have the token before a token add to its keys in the first layer: its normalised
        embedding, mapped by ``weight`` [kv_heads * head_dim, hidden]. What slots held is void."""
        shape = (self.spec.kv_heads * self.spec.head_dim, self.spec.hidden_size)
        if weight.shape != shape:
            raise ValueError(f"keys are smeared by {weight.shape}, not {shape}")
        check(native().set_smear(self.handle, np.ascontiguousarray(weight, np.float32).ctypes.data))

    def copy_prefix(self, source: int, target: int, length: int) -> None:
        """Copy keys and values of positions [0, length) from one slot to another."""
        if not (0 <= source < self.slots and 0 <= target < self.slots):
            raise ValueError("slot out of range")
        if not 0 <= length <= self.slot_tokens:
            raise ValueError("length out of range")
        native().copy_prefix(self.handle, source, target, length)

    def reduce_head(self, tokens: Int32) -> None:
        """Keep a second head of these tokens only, for drafting; the last one given stays."""
        if self._reduced is tokens:
            return
        ids = np.ascontiguousarray(tokens, np.int32)
        if not len(ids) or ids.min() < 0 or ids.max() >= self.vocab_size:
            raise ValueError("head tokens out of range")
        check(native().reduce_head(self.handle, ids.ctypes.data, len(ids)))
        self._reduced = tokens

    def memory_bytes(self) -> dict[str, int]:
        """Bytes held, by purpose: ``weights``, ``slots``, ``scratch``."""
        return {
            "weights": self._blob.nbytes,
            "slots": native().slot_bytes(self.handle),
            "scratch": native().scratch_bytes(self.handle) + self._logits.nbytes,
        }

    def set_profiling(self, on: bool) -> None:
        """Keep a profile from now on, or stop; reading the clock costs a few percent of a step."""
        native().set_profiling(self.handle, int(on))

    def profile(self) -> dict[str, float]:
        """Seconds in ``matmul``, ``attention`` and ``other`` while profiling was on."""
        profile = Profile()
        native().profile(self.handle, ctypes.byref(profile))
        return {name: getattr(profile, name) * 1e-9 for name in ("matmul", "attention", "other")}

    def close(self) -> None:
        """Free everything; the decoder cannot be used afterwards."""
        if self._handle:
            native().destroy(self._handle)
            self._handle = ctypes.c_void_p()
            self._blob = np.empty(0, np.uint8)
            self._logits = np.empty((0, self._logits_ld), np.float32)

    def __del__(self) -> None:
        if getattr(self, "_handle", None):
            self.close()


def chosen_by(decoder: CpuDecoder, states: Float32 | None, rows: int) -> Float32 | None:
    """The states [rows, hidden] that chose the rows' tokens, as the native calls take them;
    ValueError where they do not fit."""
    if states is None:
        return None
    if not decoder.carries or states.shape != (rows, decoder.spec.hidden_size):
        raise ValueError("the states do not fit the decoder or the rows")
    return np.ascontiguousarray(states, np.float32)


def rope_tables(spec: DecoderSpec, positions: int) -> tuple[Float32, Float32]:
    """cos and sin [positions, head_dim / 2], rounded as transformers rounds them."""
    angles = np.arange(positions, dtype=np.float32)[:, None] * spec.inv_freq.astype(np.float32)
    factor = np.float32(spec.attention_factor)
    return np.cos(angles) * factor, np.sin(angles) * factor


@cache
def measure_threads() -> int:
    """The thread count to use on this machine: measured once per process, in about 0.2 s.

    Never more than the processors this process may use or a container's limit pays for, and fewer
    while others keep them busy.
    """
    count: int = native().measure_threads()
    return min(count, granted_processors() or count)


def read_bandwidth(threads: int, size: int) -> float:
    """Bytes per second at which this many threads read ``size`` bytes again and again, measured
    now: from memory, or from the cache that holds so many."""
    rate: float = native().read_bandwidth(threads, size)
    return rate
