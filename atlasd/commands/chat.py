"""``atlasd chat``: one question, or a conversation in the terminal; answers stream."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from atlasd.commands.connection import Connection
from atlasd.commands.output import styled
from atlasd.errors import AtlasdError, NotRunningError, RequestError

HELP = "Ctrl-C ends an answer, Ctrl-D the chat; /new starts over, /help: this"


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(
        prog="atlasd chat",
        description="Talk to the model. With a MESSAGE (or standard input): one answer.",
        epilog=HELP,
    )
    made.add_argument(
        "message", nargs="*", metavar="MESSAGE", help="a question; - reads it from standard input"
    )
    made.add_argument("--system", help="instructions for the whole conversation")
    made.add_argument("--file", action="append", default=[], type=Path, help="a file to talk about")
    made.add_argument("--max-tokens", type=int, help="tokens of an answer, at most")
    made.add_argument("--temperature", type=float, help="0 (the default) is the likeliest answer")
    made.add_argument("--seed", type=int, help="the same seed gives the same answer")
    made.add_argument("--stats", action="store_true", help="tell what each answer cost")
    return made


def run(options: argparse.Namespace) -> int:
    """0 after the answer or the conversation."""
    opening = [{"role": "system", "content": options.system}] if options.system else []
    files = "".join(_quoted(path) for path in options.file)
    question = " ".join(options.message)
    if question == "-" or (not question and not sys.stdin.isatty()):
        question = sys.stdin.read()
    if question.strip():
        _answer([*opening, {"role": "user", "content": files + question}], options)
        return 0
    return _converse(opening, files, options)


def _quoted(path: Path) -> str:
    try:
        return f"{path}:\n```\n{path.read_text(encoding='utf-8')}\n```\n\n"
    except OSError as error:
        raise RequestError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise RequestError(f"{path} cannot be read as text: it is not UTF-8.") from None


def _converse(opening: list[dict[str, str]], files: str, options: argparse.Namespace) -> int:
    # Line editing and history come with the import.
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401
    status = Connection().call("GET", "/atlasd/v1/status", timeout=10)
    print(styled(f"{status['model']['name']} · {HELP}", "dim"))
    said = list(opening)
    while True:
        try:
            line = input("> ")  # readline counts the bytes of colours as columns
        except (EOFError, KeyboardInterrupt):
            print()
            return 0
        if line.strip() == "/new":
            said = list(opening)
            print(styled("A new conversation.", "dim"))
        elif line.strip() == "/help":
            print(styled(HELP, "dim"))
        elif line.strip():
            first = files if len(said) == len(opening) else ""
            asked = {"role": "user", "content": first + line}
            try:
                answer = _answer([*said, asked], options)
            except NotRunningError:
                raise
            except AtlasdError as error:
                # The conversation is still there: it can be asked otherwise, or begun anew.
                print(styled(str(error), "red"), file=sys.stderr)
            else:
                said += [asked, {"role": "assistant", "content": answer}]


def _answer(messages: list[dict[str, str]], options: argparse.Namespace) -> str:
    body: dict[str, Any] = {
        "messages": messages,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    for name in ("max_tokens", "temperature", "seed"):
        if getattr(options, name) is not None:
            body[name] = getattr(options, name)
    events = Connection().events("POST", "/v1/chat/completions", body)
    text = ""
    timings: dict[str, Any] = {}
    # Leaving the loop closes the connection, and that cancels the stream.
    with contextlib.closing(_closing(events)) as open_events:
        try:
            for event in open_events:
                timings = event.get("timings") or timings
                for choice in event["choices"]:
                    piece = choice["delta"].get("content") or ""
                    text += piece
                    print(piece, end="", flush=True)
        except KeyboardInterrupt:
            if not sys.stdin.isatty() or options.message:
                raise
    print()
    if options.stats and timings:
        print(styled(_cost(timings), "dim"), file=sys.stderr)
    return text


def _closing(events: Iterator[dict[str, Any]]) -> Any:
    """A generator's ``close`` is not part of the Iterator type."""
    return events


def _cost(timings: dict[str, Any]) -> str:
    return (
        f"{timings['predicted_n']} tokens at {timings['predicted_per_second']:.0f} tokens/s,"
        f" prompt {timings['prompt_n']} tokens (+{timings['cache_n']} cached)"
        f" in {timings['prompt_ms']:.0f} ms,"
        f" {timings['draft_n_accepted']} of {timings['draft_n']} drafted tokens accepted"
    )
