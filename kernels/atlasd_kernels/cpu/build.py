"""Building the native library: ``python -m atlasd_kernels.cpu.build`` in a checkout, and the same
functions from setup.py. Uses nothing but the standard library and a C++17 compiler."""

from __future__ import annotations

import argparse
import hashlib
import os
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
FLAGS = ["-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-Wall", "-Wextra"]
# Bits may not depend on what the compiler fuses: every fused multiply-add is written out.
FLAGS += ["-ffp-contract=off", "-fno-math-errno", "-pthread"]
SANITIZE = ["-O1", "-g", "-fno-omit-frame-pointer", "-fsanitize=address,undefined"]
SANITIZE += ["-DATLASD_NO_FUTEX"]  # what other systems than Linux sleep with is run here, too
# GCC 12 warns about uninitialised values inside its own AVX-512 header (its bug 105593)
AVX512 = (
    "-mavx512f -mavx512bw -mavx512vl -mavx512dq -mavx512vnni -mavx2 -mfma"
    " -mprefer-vector-width=512 -Wno-uninitialized -Wno-maybe-uninitialized"
)
AMX = ["-mamx-tile", "-mamx-bf16", "-mamx-int8"]
FP16 = ["-mavx512fp16", "-mgfni"]
AVX2 = "-mavx2 -mfma"
VNNI = ["-mavxvnni"]
ISA_FLAGS = {
    "isa_fp16.cpp": f"{AVX512} {' '.join(FP16)}",
    "isa_amx.cpp": f"{AVX512} {' '.join(AMX)}",
    "isa_avx512.cpp": AVX512,
    "isa_avxvnni.cpp": f"{AVX2} {' '.join(VNNI)}",
    "isa_avx2.cpp": AVX2,
}
NEON = {"isa_neon.cpp": "-march=armv8.2-a+dotprod"}


def is_x86() -> bool:
    return platform.machine().lower() in ("x86_64", "amd64")


def is_arm() -> bool:
    return platform.machine().lower() in ("aarch64", "arm64")


def knows(cxx: str, flags: list[str]) -> bool:
    """Whether the compiler has these: AMX and AVX-VNNI from GCC 11 and clang 12 on, FP16 from GCC
    12 and clang 14."""
    command = [cxx, *flags, "-x", "c++", "-fsyntax-only", os.devnull]
    return is_x86() and subprocess.run(command, capture_output=True, check=False).returncode == 0


def sources(cxx: str) -> list[Path]:
    """What this compiler can compile for this machine."""
    left_out = (set() if is_x86() else set(ISA_FLAGS)) | (set() if is_arm() else set(NEON))
    for name, flags in (("isa_amx.cpp", AMX), ("isa_fp16.cpp", FP16), ("isa_avxvnni.cpp", VNNI)):
        left_out |= set() if knows(cxx, flags) else {name}
    return [p for p in sorted(HERE.glob("*.cpp")) if p.name not in left_out]


def compiler() -> str | None:
    """The C++ compiler to use: $CXX, or the first of g++, clang++ and c++ on the path."""
    for name in (os.environ.get("CXX"), "g++", "clang++", "c++"):
        if name and (found := shutil.which(name)):
            return found
    return None


def library_name(*, sanitize: bool = False, emulate: bool = False) -> str:
    suffix = sysconfig.get_config_var("EXT_SUFFIX") or ".so"
    kind = "_sanitized" * sanitize + "_emulated" * emulate
    return f"_native{kind}{suffix}"


def text_of(source: Path, seen: set[str]) -> str:
    """A file and all of the package's headers that it includes, for telling what changed."""
    text = source.read_text()
    for name in re.findall(r'#include "(.+)"', text):
        if name not in seen:
            seen.add(name)
            text += text_of(HERE / name, seen)
    return text


def build(
    target: Path,
    *,
    sanitize: bool = False,
    emulate: bool = False,
    offer: bool = False,
    verbose: bool = False,
    keep: Path | None = None,
) -> Path:
    """Compile all files in parallel and link them as ``target``, which is replaced atomically.

    ``keep`` is a folder of compiled files: those whose text and flags are the same are reused.
    For tests on processors without AMX, ``emulate`` puts a scalar model in its place, and ``offer``
    makes the library take its instructions for granted.
    """
    cxx = compiler()
    if cxx is None:
        raise RuntimeError("no C++ compiler found (set CXX, or install g++)")
    todo = sources(cxx)
    names = {source.name for source in todo}
    with tempfile.TemporaryDirectory() as folder:

        def compile_one(source: Path) -> str:
            command = [cxx, *FLAGS, *(SANITIZE if sanitize else [])]
            command += ["-DATLASD_X86"] if is_x86() else []
            stem = source.stem
            if source.name in ("isa_amx.cpp", "processor.cpp"):
                offered = emulate or (offer and source.name == "processor.cpp")
                command += ["-DATLASD_AMX"] * ("isa_amx.cpp" in names)
                command += ["-DATLASD_FP16"] * ("isa_fp16.cpp" in names)
                command += ["-DATLASD_AVXVNNI"] * ("isa_avxvnni.cpp" in names)
                command += ["-DATLASD_NEON"] * ("isa_neon.cpp" in names)
                command += ["-DATLASD_EMULATE_TILES"] * offered
                stem = "emulated_" * offered + stem
            command += {**ISA_FLAGS, **NEON}.get(source.name, "").split()
            # Not by where the file lies: a copy of the tree compiles to the same.
            key = hashlib.sha256(f"{command} {text_of(source, set())}".encode()).hexdigest()
            output = (keep or Path(folder)) / f"{stem}-{key[:16]}.o"
            if not output.exists():
                output.parent.mkdir(parents=True, exist_ok=True)
                for old in output.parent.glob(f"{stem}-*.o"):
                    old.unlink(missing_ok=True)
                beside = str(output.with_suffix(f".{os.getpid()}"))
                run([*command, "-c", str(source), "-o", beside], verbose)
                Path(beside).replace(output)
            return str(output)

        # the files that take longest first
        todo.sort(key=lambda p: not p.name.startswith("isa_"))
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            objects = list(pool.map(compile_one, todo))
        linked = str(Path(folder) / "library.so")
        flags = ["-shared", "-pthread", "-static-libgcc"]
        flags += ["-fsanitize=address,undefined"] if sanitize else []
        run([cxx, *flags, *objects, "-o", linked], verbose)
        target.parent.mkdir(parents=True, exist_ok=True)
        beside = target.with_name(f".{target.name}.{os.getpid()}")
        shutil.copy(linked, beside)
        beside.replace(target)
    return target


def run(command: list[str], verbose: bool) -> None:
    if verbose:
        print(" ".join(command))
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.stderr:
        print(done.stderr, file=sys.stderr)
    if done.returncode:
        raise RuntimeError(f"{command[0]} failed:\n{done.stderr}")


def main() -> None:
    parser = argparse.ArgumentParser(prog="atlasd_kernels.cpu.build", description=__doc__)
    parser.add_argument("--sanitize", action="store_true", help="with ASan and UBSan, for tests")
    parser.add_argument("--emulate", action="store_true", help="with emulated AMX, for tests")
    parser.add_argument("--verbose", action="store_true", help="print every command")
    options = parser.parse_args()
    target = HERE / library_name(sanitize=options.sanitize, emulate=options.emulate)
    # the checkout's own build folder: inside the package, it would look like one
    keep = HERE.parents[2] / "build" / "native" / ("sanitized" if options.sanitize else "plain")
    print(
        build(
            target,
            sanitize=options.sanitize,
            emulate=options.emulate,
            verbose=options.verbose,
            keep=keep,
        )
    )


if __name__ == "__main__":
    main()
