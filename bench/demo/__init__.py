"""``make demo``: an editing session over LSP in a real repository, with its numbers."""
