"""Kernels of a decoder step on an NVIDIA GPU, in Triton. Importing this needs torch and triton.

Every module holds the torch reference, the kernels and their launcher. A row's bits depend on
nothing but the row: see ``tiling``, ``matmul`` and ``attention`` for how.
"""
