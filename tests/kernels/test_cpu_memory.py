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

before, anonymous = resident("VmRSS"), resident("RssAnon")
decoder = CpuDecoder(
    spec, Tensors(), weight_format=sys.argv[1], slots=2, slot_tokens=512, threads=1,
    cache_dir=Path(sys.argv[2]), identity="memory",
)
rows = np.arange(512, dtype=np.int32)
for slot in (0, 1):
    decoder.forward(rows, rows * 0 + slot, rows, rows[-1:])
held = decoder.memory_bytes()
held |= {"grown": resident("VmRSS") - before, "peak": resident("VmHWM") - before}
print(json.dumps({"own": resident("RssAnon") - anonymous, **held}), flush=True)
sys.stdin.read()
with open("/proc/self/smaps") as maps:
    packed = maps.read().split("packed-", 1)[1]
shared = packed.split("Shared_Clean:", 1)[1].split(None, 1)[0]
print(int(shared) * 1024)
"""


pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")


def start(weight_format: str, folder: Path) -> subprocess.Popen[str]:
    """A process that loads the model, says what it holds, and waits."""
    command = [sys.executable, "-c", LOAD, weight_format, str(folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    return subprocess.Popen(command, text=True, cwd=ROOT, **pipes)  # type: ignore[call-overload,no-any-return]


@pytest.mark.parametrize("weight_format", ["bf16", "int4"])
def test_loading_from_the_cache_takes_the_packed_weights_and_the_slots(
    weight_format: str, tmp_path: Path
) -> None:
    start(weight_format, tmp_path).communicate()  # packs; the second finds the cache
    found = json.loads(start(weight_format, tmp_path).communicate()[0].splitlines()[0])
    held = found["weights"] + found["slots"]
    assert found["weights"] > 15 * MEBI
    assert found["peak"] < 1.15 * found["weights"] + found["slots"] + found["scratch"] + 4 * MEBI
    assert found["grown"] > 0.8 * held
    # The weights are the file's pages, not a copy of them.
    assert found["own"] < found["slots"] + found["scratch"] + 4 * MEBI


def test_processes_share_packed_weights(tmp_path: Path) -> None:
    first, second = start("int4", tmp_path), None
    try:
        assert first.stdout is not None
        weights = json.loads(first.stdout.readline())["weights"]
        second = start("int4", tmp_path)
        assert int(second.communicate()[0].splitlines()[1]) > 0.95 * weights
    finally:
        first.communicate()
