"""The daemon as a process: settings, the log, and an exit status."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import logging.handlers
import os
import resource
import signal
import sys
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from atlasd.config import SETTINGS, Config, LogSettings, load
from atlasd.daemon import Daemon
from atlasd.errors import AtlasdError
from atlasd.listeners import AlreadyRunning
from atlasd.paths import Paths, paths

log = logging.getLogger(__name__)

OPEN_FILES = 8192


def set_up_logging(file: Path, settings: LogSettings, *, to_terminal: bool) -> None:
    """Log to a rotated file, 0600, and to the terminal in the foreground."""
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    os.close(descriptor)
    handlers: list[logging.Handler] = [
        logging.handlers.RotatingFileHandler(
            file,
            maxBytes=int(settings.max_mb * 1024 * 1024),
            backupCount=settings.files,
            encoding="utf-8",
        )
    ]
    if to_terminal:
        handlers.append(logging.StreamHandler())
    logging.basicConfig(
        level=settings.level.upper(),
        format="%(asctime)s %(levelname)s %(name)s: %(message)s",
        handlers=handlers,
        force=True,
    )
    logging.getLogger("asyncio").setLevel(logging.WARNING)
    leave_out_malformed_requests()
    # A full disk must not fill standard error with tracebacks of the logging module itself.
    logging.raiseExceptions = False


def allow_open_files() -> None:
    """Every connection is an open file. Systems allow 1,024 of them at first, which one client that
    leaves its connections open could use up, and then the editor gets in no more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(OPEN_FILES, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def leave_out_malformed_requests() -> None:
    """Bytes that are no HTTP are their sender's fault, and logging them would show the token that
    may stand in them."""
    logging.getLogger("aiohttp.server").addFilter(_is_ours)


def _is_ours(record: logging.LogRecord) -> bool:
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError | web.RequestPayloadError)


def serve(options: dict[str, Any], *, foreground: bool) -> int:
    """Run the daemon in this process until it is stopped. Returns the exit status."""
    folders = paths()
    # Rotated logs, cached weights, whatever is written: nobody else's to read.
    os.umask(0o077)
    allow_open_files()
    try:
        config = load(folders.config_file, options=options)
        folders.create()
        set_up_logging(folders.log, config.log, to_terminal=foreground)
        asyncio.run(_run(config, folders))
    except AlreadyRunning as error:
        print(error, file=sys.stderr)
        return 3
    except AtlasdError as error:
        print(error, file=sys.stderr)
        log.error("%s", error)
        return 1
    except OSError as error:
        print(f"{error.filename or folders.runtime}: {error.strerror}.", file=sys.stderr)
        return 1
    return 0


async def _run(config: Config, folders: Paths) -> None:
    await Daemon(config, folders).run()


def main(arguments: list[str] | None = None) -> int:
    """What ``atlasd start`` runs in the background: ``python -m atlasd.run --set NAME=JSON``."""
    parser = argparse.ArgumentParser(prog="python -m atlasd.run", description=__doc__)
    parser.add_argument("--set", action="append", default=[], metavar="NAME=JSON")
    options: dict[str, Any] = {}
    for assignment in parser.parse_args(arguments).set:
        name, _, value = assignment.partition("=")
        if name not in SETTINGS:
            parser.error(f"unknown setting {name}")
        options[name] = msgspec.json.decode(value)
    # The terminal that started it may close; the daemon stays.
    signal.signal(signal.SIGHUP, signal.SIG_IGN)
    return serve(options, foreground=False)


if __name__ == "__main__":
    sys.exit(main())
