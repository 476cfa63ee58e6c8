"""Compiles what the launchers launch for a GPU that is not there.

``recorded`` stands in for launching: it keeps each kernel with its arguments. ``compile_for`` turns
one into PTX and machine code for a given compute capability, as Triton would on the device.
"""

from __future__ import annotations

import collections
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

TYPES = {
    torch.float32: "*fp32",
    torch.bfloat16: "*bf16",
    torch.float16: "*fp16",
    torch.uint8: "*u8",
    torch.int32: "*i32",
}
OPTIONS = ("num_warps", "num_stages", "enable_fp_fusion")


@dataclass
class Launch:
    """A kernel and what it was launched with."""

    kernel: Any
    arguments: dict[str, Any]
    options: dict[str, Any]
    name: str = field(init=False)

    def __post_init__(self) -> None:
        self.name = self.kernel.fn.__name__


@contextmanager
def recorded() -> Iterator[list[Launch]]:
    """Within this, kernels are noted instead of launched."""
    launches: list[Launch] = []

    def run(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        options = {k: v for k, v in kwargs.items() if k in OPTIONS}
        named = dict(zip(self.arg_names, args, strict=False))
        named |= {k: v for k, v in kwargs.items() if k in self.arg_names}
        launches.append(Launch(self, named, options))

    original: Callable[..., Any] = JITFunction.run
    JITFunction.run = run
    try:
        yield launches
    finally:
        JITFunction.run = original


def compile_for(launch: Launch, capability: int = 90) -> Any:
    """What Triton makes of it for this compute capability (90: H100)."""
    signature, constants, attributes = {}, {}, {}
    for index, parameter in enumerate(launch.kernel.params):
        value = launch.arguments[parameter.name]
        name = parameter.name
        if parameter.is_constexpr:
            signature[name], constants[name] = "constexpr", value
        elif isinstance(value, torch.Tensor):
            signature[name] = TYPES[value.dtype]
            attributes[(index,)] = [["tt.divisibility", 16]]
        elif isinstance(value, float):
            signature[name] = "fp32"
        elif value == 1 and not parameter.do_not_specialize:
            signature[name], constants[name] = "constexpr", 1
        else:
            signature[name] = "i32"
            if value % 16 == 0 and not parameter.do_not_specialize:
                attributes[(index,)] = [["tt.divisibility", 16]]
    source = ASTSource(launch.kernel, signature, constants, attributes)
    target = GPUTarget("cuda", capability, 32)
    return triton.compile(source, target=target, options=launch.options)


def instructions(compiled: Any) -> collections.Counter[str]:
    """How often the PTX has the instructions that matter here."""
    wanted = r"\b(?:mma\.sync|wgmma\.mma_async|atom|red|mul\.f32|mul\.ftz|fma\.rn)\b[\w.:]*"
    wanted += r"|\b\w+(?:\.\w+)*\.ftz\b[\w.]*"
    return collections.Counter(re.findall(wanted, compiled.asm["ptx"]))


@dataclass(frozen=True)
class MachineCode:
    """What predicts how fast a kernel runs."""

    registers: int
    """Of a thread."""

    spilled: int
    """Bytes of a thread that do not fit into registers."""

    loop: list[str]
    """Instructions of the loop that multiplies, once through; empty if there is none."""

    @property
    def counts(self) -> collections.Counter[str]:
        """Instructions of the loop by name."""
        return collections.Counter(
            re.sub(r"^@!?U?P\w+ +", "", line).split()[0] for line in self.loop
        )


def machine_code(compiled: Any) -> MachineCode:
    """Registers and instructions, as NVIDIA's disassembler tells them."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled.asm["cubin"])
        file.flush()
        usage = _told("cuobjdump", "--dump-resource-usage", file.name)
        listing = _told("nvdisasm", "-c", file.name)
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    assert found, usage
    lines: list[str] = []
    labels: dict[str, int] = {}
    loops = []
    for line in listing.splitlines():
        if label := re.match(r"\s*(\.L_\w+):", line):
            labels[label[1]] = len(lines)
        elif instruction := re.match(r"\s*/\*[0-9a-f]+\*/\s+(.*?);", line):
            lines.append(instruction[1])
            back = re.search(r"\bBRA\b.*\((\.L_\w+)\)", instruction[1])
            if back and back[1] in labels:
                loops.append(lines[labels[back[1]] :])
    multiplying = [loop for loop in loops if any("MMA" in line for line in loop)]
    return MachineCode(int(found[1]), int(found[2]), max(multiplying, key=len, default=[]))


def _told(tool: str, *arguments: str) -> str:
    path = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / tool
    return subprocess.run([path, *arguments], capture_output=True, text=True, check=True).stdout
