"""``python -m atlasd_lsp`` is ``atlasd-lsp``."""

from atlasd_lsp.server import main

main()
