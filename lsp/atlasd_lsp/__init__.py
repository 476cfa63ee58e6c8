"""The bridge between editors that speak LSP and the daemon. Imports neither torch nor atlasd."""

__version__ = "0.1.0"
