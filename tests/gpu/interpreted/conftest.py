"""The kernels under Triton's interpreter. Triton decides when it is imported whether to interpret,
so these run in a process of their own: ``tests/gpu/test_interpreted.py`` starts it."""

from __future__ import annotations

import importlib.util
import os

import pytest

if os.environ.get("TRITON_INTERPRET") != "1" or importlib.util.find_spec("triton") is None:
    collect_ignore_glob = ["test_*.py"]
else:
    import torch
    from triton.runtime import interpreter

    torch.set_num_threads(1)
    # Checking every integer sum for overflow takes most of the time, and Philox means to overflow.
    options = interpreter.InterpreterOptions(sanitize_overflow=False)
    interpreter.interpreter_builder.options = options


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "interpreted" in str(item.path):
            item.add_marker(pytest.mark.timeout(900))
