"""The decoder on an NVIDIA GPU: quantised weights, Triton kernels, a CUDA graph per row bucket.

The bits of a decoded row depend on nothing but its slot's tokens, whatever else the step holds.
Prefilled rows have bits of their own (another instruction multiplies there), which depend on
nothing but the tokens either, wherever the prompt is cut.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from atlasd_kernels.gpu.accept import accept
from atlasd_kernels.gpu.choose import TOP, Choices, Chooser
from atlasd_kernels.gpu.noise import gumbel_table

from atlasd.models.config import ModelConfig
from atlasd.models.cuda_graphs import Graphs, Record, Recorder
from atlasd.models.cuda_layout import BUCKETS, FIELDS, attention_tiles, bucket_for, lay_out
from atlasd.models.cuda_step import MOST_DECODED, Inputs, Step
from atlasd.models.decoder import Float32, Int32, Verified, Wanted, check_inside
from atlasd.models.locate import Progress
from atlasd.models.memory import SlotPlan
from atlasd.models.quant import QuantModel

UInt32 = npt.NDArray[np.uint32]


class CudaDecoder:
    """Serves ``models.decoder.DecidingDecoder``. Not thread-safe: one call at a time."""

    prefill_chunk = 16
    row_independent = True

    def __init__(
        self,
        config: ModelConfig,
        model: QuantModel,
        slots: SlotPlan,
        *,
        prefill_rows: int = 1024,
        graphs: bool = True,
        progress: Progress | None = None,
    ) -> None:
        """``model`` says the device. On a CPU the kernels need Triton's interpreter, for tests.

        Raises torch.OutOfMemoryError where the slots, the buffers or the graphs do not fit;
        without ``graphs`` steps run eagerly."""
        self.config, self.model = config, model
        self.vocab_size = config.vocab_size
        self.slots, self.slot_tokens = slots.slots, slots.slot_tokens
        self.prefill_rows = prefill_rows
        self.device = model.embedding.device
        shape = (config.layers, 2, slots.slots, config.kv_heads, slots.slot_tokens)
        kind = model.embedding.dtype if self.device.type == "cuda" else torch.float32
        self._cache = torch.zeros(*shape, config.head_dim, dtype=kind, device=self.device)
        self._group = config.heads // config.kv_heads
        self._inputs = Inputs(MOST_DECODED, self.device)
        self._step = Step(model, config, self._cache, self._inputs, MOST_DECODED, prefill=False)
        self._prompt = Inputs(prefill_rows, self.device)
        self._prefill = Step(
            model, config, self._cache, self._prompt, prefill_rows, prefill=True, shared=self._step
        )
        self._chooser = Chooser(MOST_DECODED, config.vocab_size, gumbel_table(self.device))
        self._logits: torch.Tensor
        self._make_outputs()
        self.graphs = Graphs(self._run_bucket)
        self._graph_bytes = 0
        if self.device.type != "cuda":
            self.graphs.reason = "there is no GPU"
        elif graphs:
            self.capture(Recorder(self.device), progress)
        else:
            self.graphs.run_eagerly("there is no memory for them")

    def capture(self, record: Record, progress: Progress | None = None) -> None:
        """Record the steps of every bucket; see ``Graphs.capture``."""
        before = self._free_bytes()
        self.graphs.capture(record, progress)
        self._graph_bytes = max(0, before - self._free_bytes())

    def bucket(self, rows: int) -> int:
        """1, 2, 4, 8, 16, 32 or 64; more rows take several steps."""
        return bucket_for(rows)

    @torch.inference_mode()
    def forward(
        self, tokens: Int32, slots: Int32, positions: Int32, wanted: Int32, *, prefill: bool = False
    ) -> Float32:
        """See ``Decoder.forward``. One synchronisation per pass."""
        check_inside(self, slots, positions)
        if len(self._logits) < len(wanted):
            self._logits = self._pinned((len(wanted), self.vocab_size), torch.float32)
        most = self.prefill_rows if prefill else MOST_DECODED
        done = np.zeros(len(wanted), bool)
        for first in range(0, len(tokens), most):
            rows = slice(first, min(first + most, len(tokens)))
            here = np.flatnonzero((wanted >= rows.start) & (wanted < rows.stop))
            for some in np.split(here, range(MOST_DECODED, len(here), MOST_DECODED)):
                local = wanted[some] - np.int32(first)
                self._start(tokens[rows], slots[rows], positions[rows], local, prefill=prefill)
                self._fetch(some)
                done[some] = True
        assert done.all()
        return self._logits[: len(wanted)].numpy()

    @torch.inference_mode()
    def verify(self, tokens: Int32, slots: Int32, positions: Int32, wanted: Wanted) -> Verified:
        """See ``DecidingDecoder.verify``. One small read, and no other synchronisation; until it
        is there, the host does what it can without it."""
        rows, noise, parts = wanted.rows, wanted.noise, wanted.parts
        if len(tokens) > MOST_DECODED or len(parts) > MOST_DECODED:
            raise ValueError(f"a verified step has at most {MOST_DECODED} rows")
        count, array = len(rows), self._inputs.array
        temperatures = np.array([n.temperature for n in noise], np.float32)
        array[7, :count] = temperatures.view(np.int32)
        keys: UInt32 = np.array(
            [(n.seed & 0xFFFFFFFF, n.seed >> 32, n.choice, n.output_index) for n in noise],
            np.uint32,
        ).reshape(-1, 4)
        array[8:12, :count] = keys.T.view(np.int32)
        array[12, :count] = tokens[rows]
        array[13:15, : len(parts)] = np.array(parts, np.int32).reshape(-1, 2).T
        self._start(tokens, slots, positions, rows, prefill=False)
        inputs = self._inputs
        noise_rows = inputs.device[FIELDS.index("seed_low") :][:4]
        temperature = inputs["temperature"].view(torch.float32)
        self._chooser.choose(
            self._step.logits, temperature, noise_rows, self._choices, count=max(count, 1)
        )
        if parts:
            accept(
                self._choices.tokens,
                inputs["drafted"],
                inputs["part_first"],
                inputs["part_rows"],
                self._accepted,
                parts=len(parts),
            )
        self._result.copy_(self._decided, non_blocking=True)
        wanted.meanwhile()
        self._wait()
        whole = self._result.numpy()
        top_ids, logprobs = whole[2 : 2 + TOP], whole[2 + TOP :].view(np.float32)
        return Verified(
            whole[0, :count],
            whole[1, : len(parts)],
            top_ids.reshape(-1, TOP)[:count],
            logprobs.reshape(-1, TOP)[:count],
        )

    @torch.inference_mode()
    def copy_prefix(self, source: int, target: int, length: int) -> None:
        """Copy keys and values of positions [0, length) from one slot to another."""
        self._cache[:, :, target, :, :length] = self._cache[:, :, source, :, :length]

    def memory_bytes(self) -> dict[str, int]:
        """Bytes held, by purpose."""
        scratch = self._step.nbytes + self._prefill.nbytes + self._chooser.nbytes
        shared = sum(t.nbytes for t in (self._step.cos, self._step.sin, self._step.logits))
        scratch += self._inputs.nbytes + self._prompt.nbytes + self._decided.nbytes - shared
        return {
            "weights": self.model.nbytes(),
            "slots": self._cache.nbytes,
            "scratch": scratch,
            "graphs": self._graph_bytes,
        }

    def close(self) -> None:
        """Free everything; the decoder cannot be used afterwards."""
        self.graphs.close()
        del self.model, self._cache, self._step, self._prefill, self._chooser, self._choices
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _make_outputs(self) -> None:
        """What ``verify`` reads, in one array: tokens, accepted, top ids and their bits."""
        rows = MOST_DECODED
        shape = (2 + 2 * TOP, rows)
        self._decided = torch.zeros(shape, dtype=torch.int32, device=self.device)
        self._result = self._pinned(shape, torch.int32)
        self._accepted = self._decided[1]
        self._choices = Choices(
            self._decided[0],
            self._decided[2 : 2 + TOP].view(rows, TOP),
            self._decided[2 + TOP :].view(torch.float32).view(rows, TOP),
        )
        self._logits = self._pinned((BUCKETS[-1], self.vocab_size), torch.float32)

    def _free_bytes(self) -> int:
        return torch.cuda.mem_get_info(self.device)[0] if self.device.type == "cuda" else 0

    def _pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> torch.Tensor:
        return torch.empty(shape, dtype=dtype, pin_memory=self.device.type == "cuda")

    def _run_bucket(self, bucket: int) -> None:
        self._step.run(bucket, bucket, bucket)

    def _start(
        self, tokens: Int32, slots: Int32, positions: Int32, wanted: Int32, *, prefill: bool
    ) -> None:
        inputs = self._prompt if prefill else self._inputs
        count = len(tokens) if prefill else bucket_for(len(tokens))
        tiles = attention_tiles(count, self._group)
        units = lay_out(inputs.array, tokens, slots, positions, wanted, self._group, tiles)
        inputs.send()
        if prefill:
            self._prefill.run(count, units, len(wanted))
        else:
            self.graphs.run(count)
        inputs.prepare()

    def _fetch(self, rows: npt.NDArray[np.int64]) -> None:
        """Read logits of the step that runs to these rows of the result."""
        if len(rows):
            first = int(rows[0])
            target = self._logits[first : first + len(rows)]
            target.copy_(self._step.logits[: len(rows)], non_blocking=True)
        self._wait()

    def _wait(self) -> None:
        # Also before the next step's inputs may be written: the copy reads them as it gets there.
        if self.device.type == "cuda":
            torch.cuda.current_stream().synchronize()
