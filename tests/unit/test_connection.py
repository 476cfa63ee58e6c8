"""What a command makes of answers that a daemon could not finish."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator

import pytest

from atlasd.commands.connection import Connection
from atlasd.errors import AtlasdError
from atlasd.paths import Paths

Says = Callable[[bytes], None]
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n"
CHUNKED = HEAD + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.fixture
def says(folders: Paths) -> Iterator[Says]:
    """Answers the next request with these bytes, and hangs up."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folders.socket))
        listener.listen()
        threads: list[threading.Thread] = []

        def answer(raw: bytes) -> None:
            with listener.accept()[0] as caller:
                caller.recv(65536)
                caller.sendall(raw)

        def say(raw: bytes) -> None:
            threads.append(threading.Thread(target=answer, args=(raw,)))
            threads[-1].start()

        yield say
        for thread in threads:
            thread.join(5)


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"HTTP/1.1 200 OK\r\n",
        HEAD + b'Content-Length: 20\r\n\r\n{"state":"re',
        CHUNKED + b'c\r\n{"state":"re\r\n',
        HEAD + b"Content-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 500 Oops\r\nContent-Length: 9\r\n\r\nno json\r\n",
        b"hello\r\n\r\n",
    ],
)
def test_half_an_answer_is_an_error_in_one_line(folders: Paths, says: Says, raw: bytes) -> None:
    says(raw)
    with pytest.raises(AtlasdError, match="The daemon "):
        Connection(folders).call("GET", "/atlasd/v1/status", timeout=5)


@pytest.mark.parametrize(("way", "start"), [("lines", b""), ("events", b"data: ")])
def test_half_a_line_is_one_too_and_what_came_before_it_is_told(
    folders: Paths, says: Says, way: str, start: bytes
) -> None:
    lines = start + b'{"a":1}\n' + start + b'{"a":\n'
    says(CHUNKED + b"%x\r\n%s\r\n" % (len(lines), lines))
    answer = getattr(Connection(folders), way)("GET", "/")
    assert next(answer) == {"a": 1}
    with pytest.raises(AtlasdError, match="The daemon "):
        next(answer)
