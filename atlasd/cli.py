"""``atlasd``: finds the command, loads only it, and turns errors into one line and a status."""

from __future__ import annotations

import sys
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from atlasd.errors import AtlasdError

COMMANDS = {
    "start": "start the daemon and wait until the model is ready",
    "stop": "stop the daemon",
    "status": "what the daemon is doing",
    "complete": "complete at FILE:LINE:COL, as an editor would see it",
    "chat": "talk to the model",
    "connect": "print what to paste into an editor or client",
    "models": "models that can be started here",
    "index": "read a folder now rather than when an editor opens it",
    "why": "how the last completion came about",
    "top": "tokens per second and drafting, live",
    "pause": "give the memory back and stay quiet",
    "resume": "go on after pause",
    "drafting": "switch drafting on or off",
    "data": "show, export or purge what is stored",
    "doctor": "check everything and say what to mend",
    "bench": "measure this machine",
}
"""Every command and its one line; each lives in ``atlasd/commands/NAME.py``."""

OK, FAILED, USAGE, NOT_RUNNING, INTERRUPTED = 0, 1, 2, 3, 130


def main(arguments: list[str] | None = None) -> int:
    """Run a command line; returns the exit status."""
    # A question mark where the terminal has no such character, rather than a traceback.
    sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
    try:
        status = _dispatch(sys.argv[1:] if arguments is None else arguments)
        sys.stdout.flush()
        return status
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return INTERRUPTED
    except BrokenPipeError:
        # The reader (head, less) has enough. Keep Python from complaining about it at exit.
        import os

        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return OK


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help", "help"):
        print(_usage())
        return OK if words else USAGE
    if words[0] in ("-V", "--version"):
        from atlasd import __version__

        print(f"atlasd {__version__}")
        return OK
    if words[0] not in COMMANDS:
        return _unknown(words[0])
    return _run(words[0], words[1:])


def _run(command: str, words: list[str]) -> int:
    from atlasd.errors import AtlasdError, NotRunningError, not_text

    module = import_module(f"atlasd.commands.{command}")
    try:
        status: int = module.run(module.parser().parse_args(words))
        return status
    except NotRunningError as error:
        return _complain(error, NOT_RUNNING)
    except AtlasdError as error:
        return _complain(error, FAILED)
    except UnicodeEncodeError as error:
        return _complain(not_text(error), FAILED)
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.filename is None and not _has_working_folder():
            gone = AtlasdError("The folder you are in is gone.", "Go to another: cd")
            return _complain(gone, FAILED)
        # A folder that cannot be written, a disk that is full: no fault of the program's.
        what = f"{error.filename}: {error.strerror}" if error.filename else str(error)
        return _complain(AtlasdError(f"{what}.", "See: atlasd doctor"), FAILED)


def _has_working_folder() -> bool:
    import os

    try:
        os.getcwd()
    except FileNotFoundError:
        return False
    return True


def _complain(error: AtlasdError, status: int) -> int:
    print(f"atlasd: {error.message}", file=sys.stderr)
    if error.hint:
        print(f"        {error.hint}", file=sys.stderr)
    return status


def _usage() -> str:
    lines = ["usage: atlasd COMMAND [options]", ""]
    lines += [f"  {name:<10}{help}" for name, help in COMMANDS.items()]
    lines += ["", "atlasd COMMAND --help tells more; atlasd --version prints the version."]
    return "\n".join(lines)


def _unknown(word: str) -> int:
    import difflib

    print(f"atlasd: there is no command {word!r}.", file=sys.stderr)
    close = [known for known in COMMANDS if known.startswith(word)]
    close = close or difflib.get_close_matches(word, COMMANDS, n=1)
    print(f"        Did you mean {close[0]}?" if close else f"\n{_usage()}", file=sys.stderr)
    return USAGE


if __name__ == "__main__":
    sys.exit(main())
