"""Kernels of atlasd, usable without the rest of it. Imports nothing of atlasd."""
