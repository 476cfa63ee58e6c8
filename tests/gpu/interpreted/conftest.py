"""The kernels under Triton's interpreter. Triton decides when it is imported whether to interpret,
so these run in a process of their own: ``tests/gpu/test_interpreted.py`` starts it."""

from __future__ import annotations

import importlib.util
import os

if os.environ.get("TRITON_INTERPRET") != "1" or importlib.util.find_spec("triton") is None:
    collect_ignore_glob = ["test_*.py"]
else:
    import torch

    torch.set_num_threads(1)
