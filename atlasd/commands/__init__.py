"""One file per command of ``atlasd``: ``parser()`` and ``run(options)``, loaded when named."""
