"""Frames survive any cut of the byte stream; what is no frame ends the connection."""

from __future__ import annotations

import asyncio
import socket

import pytest
from hypothesis import given
from hypothesis import strategies as st

from atlasd.engine.framing import (
    LARGEST_FRAME,
    EngineEnd,
    frame,
    pack_tokens,
    read_from_engine,
    unpack_tokens,
)
from atlasd.engine.protocol import (
    Alternative,
    Cancel,
    Finished,
    Learned,
    Sampling,
    StreamStats,
    Submit,
    TokenLogprob,
    Tokens,
)

FROM_ENGINE = [
    Tokens(3, pack_tokens([1, 2]), [TokenLogprob(-0.5, [Alternative(1, -0.5)])]),
    Finished(3, "stop", StreamStats(output_tokens=2, drafted={"positions": 5})),
    Learned("costs", None, b"\x00\xff"),
]


@given(st.lists(st.integers(0, 2**31 - 1)))
def test_tokens_are_what_they_were(tokens):
    assert unpack_tokens(pack_tokens(tokens)) == tokens


@given(cuts=st.lists(st.integers(1, 40), max_size=20))
async def test_messages_arrive_whole_however_the_bytes_are_cut(cuts):
    reader = asyncio.StreamReader()
    data = b"".join(map(frame, FROM_ENGINE))
    for cut in [*cuts, len(data)]:
        reader.feed_data(data[:cut])
        data = data[cut:]
    reader.feed_eof()
    assert [await read_from_engine(reader) for _ in FROM_ENGINE] == FROM_ENGINE
    assert await read_from_engine(reader) is None


async def test_half_a_frame_is_the_end():
    reader = asyncio.StreamReader()
    reader.feed_data(frame(FROM_ENGINE[0])[:-1])
    reader.feed_eof()
    assert await read_from_engine(reader) is None


async def test_a_length_that_cannot_be_is_the_end():
    reader = asyncio.StreamReader()
    reader.feed_data((LARGEST_FRAME + 1).to_bytes(4, "little") + b"x" * 100)
    assert await read_from_engine(reader) is None


def test_the_engine_s_end_reads_and_writes_frames():
    ours, theirs = socket.socketpair()
    submit = Submit(1, pack_tokens([5]), 9, Sampling(temperature=0.5, logit_bias={7: -1.0}))
    with ours, theirs:
        end = EngineEnd(theirs)
        ours.sendall(frame(submit) + frame(Cancel(1)))
        assert end.read() == submit
        assert end.read() == Cancel(1)
        end.write(frame(FROM_ENGINE[0]))
        assert ours.recv(1000) == frame(FROM_ENGINE[0])
        ours.close()
        assert end.read() is None
        end.close()


def test_a_message_that_is_too_long_is_refused(monkeypatch):
    monkeypatch.setattr("atlasd.engine.framing.LARGEST_FRAME", 10)
    with pytest.raises(ValueError, match="does not fit"):
        frame(FROM_ENGINE[0])
