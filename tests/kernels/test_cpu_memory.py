"""What loading takes, as the system sees it: packed weights and slots, and little beside them."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
MEBI = 1 << 20

LOAD = """
import json, sys
from collections.abc import Mapping
from pathlib import Path
import numpy as np
from atlasd_kernels.cpu import CpuDecoder
from atlasd_kernels.spec import DecoderSpec

spec = DecoderSpec(
    vocab_size=16384, hidden_size=768, layers=4, heads=12, kv_heads=2, head_dim=64,
    intermediate_size=3072, rms_eps=1e-6, inv_freq=np.ones(32, np.float32), tied=True,
)

def shape(name):
    part = name.split(".")[-2]
    return {
        "embed_tokens": (16384, 768), "q_proj": (768, 768), "k_proj": (128, 768),
        "v_proj": (128, 768), "o_proj": (768, 768), "gate_proj": (3072, 768),
        "up_proj": (3072, 768), "down_proj": (768, 3072),
    }.get(part, (768,))

class Tensors(Mapping):
    def __getitem__(self, name):
        return np.full(shape(name), 0x3C80, np.uint16)
    def __iter__(self):
        return iter(())
    def __len__(self):
        return 0

def resident(field):
    for line in open("/proc/self/status"):
        if line.startswith(field):
            return int(line.split()[1]) * 1024

before = resident("VmRSS")
decoder = CpuDecoder(
    spec, Tensors(), weight_format=sys.argv[1], slots=2, slot_tokens=512, threads=1,
    cache_dir=Path(sys.argv[2]), identity="memory",
)
rows = np.arange(512, dtype=np.int32)
for slot in (0, 1):
    decoder.forward(rows, rows * 0 + slot, rows, rows[-1:])
held = decoder.memory_bytes()
print(json.dumps({"grown": resident("VmRSS") - before, "peak": resident("VmHWM") - before, **held}))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
@pytest.mark.parametrize("weight_format", ["bf16", "int4"])
def test_loading_from_the_cache_takes_the_packed_weights_and_the_slots(
    weight_format: str, tmp_path: Path
) -> None:
    for _ in range(2):  # the first run packs, the second finds the cache
        done = subprocess.run(
            [sys.executable, "-c", LOAD, weight_format, str(tmp_path)],
            capture_output=True,
            text=True,
            cwd=ROOT,
            check=True,
        )
    found = json.loads(done.stdout)
    held = found["weights"] + found["slots"]
    assert found["weights"] > 15 * MEBI
    assert found["peak"] < 1.15 * found["weights"] + found["slots"] + found["scratch"] + 4 * MEBI
    assert found["grown"] > 0.8 * held
