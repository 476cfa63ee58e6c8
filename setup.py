"""Builds the CPU kernels where a compiler is present; everything else is in pyproject.toml."""

from __future__ import annotations

import importlib.util
import os
import sys
from pathlib import Path
from types import ModuleType

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

NATIVE = Path(__file__).parent / "kernels" / "atlasd_kernels" / "cpu"


def native_build() -> ModuleType:
    """The package's own build script, loaded from its file: the package is not installed yet."""
    spec = importlib.util.spec_from_file_location("atlasd_native_build", NATIVE / "build.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class BuildNative(build_ext):
    """Files per instruction set need flags of their own, which an Extension cannot have."""

    def build_extension(self, ext: Extension) -> None:
        if os.environ.get("ATLASD_NO_NATIVE"):
            return
        try:
            # compiled files are kept, for the tests' builds of the same text
            kept = Path(__file__).parent / "build" / "native" / "plain"
            native_build().build(Path(self.get_ext_fullpath(ext.name)), keep=kept)
        except (OSError, RuntimeError) as error:
            # atlasd works without, through torch, only slower; `atlasd doctor` tells
            print(f"the CPU kernels were not built: {error}", file=sys.stderr)


setup(
    ext_modules=[Extension("atlasd_kernels.cpu._native", sources=[], optional=True)],
    cmdclass={"build_ext": BuildNative},
)
