"""Weights as the integer kernels see them: packed by the library, read back by pack.h's layout."""

from __future__ import annotations

import ctypes

import numpy as np
from atlasd_kernels.cpu.library import Packing, native
from atlasd_kernels.cpu.packing import FORMATS

GROUP = {"int8": 64, "int4": 32}


def packed_groups(matrix: np.ndarray, weight_format: str) -> np.ndarray:
    """float32 [columns, k] in panels: bytes [panels, groups, a group's bytes]."""
    columns, k = matrix.shape
    panel: int = native().panel_bytes(FORMATS[weight_format], k)
    data = np.zeros((columns // 32, panel), np.uint8)
    values = np.ascontiguousarray(matrix, np.float32)
    format_, fp32 = FORMATS[weight_format], FORMATS["fp32"]
    given = Packing(format_, fp32, values.ctypes.data, columns, k, data.ctypes.data, 0, 0)
    native().pack(ctypes.byref(given), 1)
    return data.reshape(columns // 32, k // GROUP[weight_format], -1)


def rounded(matrix: np.ndarray, weight_format: str) -> np.ndarray:
    """[columns, k], both multiples of the panel's and group's, after packing."""
    groups = packed_groups(matrix, weight_format)
    halves = np.ascontiguousarray(groups[..., -64:]).view(np.uint16).astype(np.uint32) << 16
    # pairs (column c, column c + 16) -> columns
    scales = halves.view(np.float32).reshape(*groups.shape[:2], 16, 2)
    scales = scales.transpose(0, 1, 3, 2).reshape(*groups.shape[:2], 1, 32, 1)
    quads = groups[..., :-64].reshape(*groups.shape[:2], -1, 32, 4).astype(np.float32)
    if weight_format == "int8":
        values = (quads - 128) * scales
    else:
        low = ((quads % 16) * 16 - 128) * scales
        values = np.stack([low, (quads - 136) * scales], 3).reshape(*groups.shape[:2], -1, 32, 4)
    return values.transpose(0, 3, 1, 2, 4).reshape(matrix.shape)
