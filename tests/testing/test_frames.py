from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.testing.frames import Frames, is_push

WHOLE = [
    b"+OK\r\n",
    b"-ERR no\r\n",
    b":12\r\n",
    b"$-1\r\n",
    b"$0\r\n\r\n",
    b"$4\r\na\r\nb\r\n",
    b"*-1\r\n",
    b"*0\r\n",
    b"*2\r\n$1\r\na\r\n:1\r\n",
    b"*2\r\n*2\r\n:1\r\n*0\r\n$-1\r\n",
    b"%2\r\n+a\r\n:1\r\n+b\r\n*1\r\n:2\r\n",
    b"~1\r\n#t\r\n",
    b">2\r\n+invalidate\r\n*1\r\n$1\r\nk\r\n",
    b"|1\r\n+ttl\r\n:3\r\n+OK\r\n",
    b"=7\r\ntxt:abc\r\n",
    b"_\r\n",
    b",1.5\r\n",
    b"(12345678901234567890\r\n",
    b"PING\r\n",
    b"\r\n",
    b"*x\r\n",
]


@pytest.mark.parametrize("frame", WHOLE)
def test_a_whole_value_is_one_frame(frame):
    assert Frames().feed(frame) == [frame]


@pytest.mark.parametrize("frame", WHOLE)
def test_a_value_that_is_not_all_there_is_none_yet(frame):
    frames = Frames()
    for byte in frame[:-1]:
        assert frames.feed(bytes([byte])) == []
    assert frames.feed(frame[-1:]) == [frame]


@given(st.lists(st.sampled_from(WHOLE), max_size=12), st.data())
def test_frames_are_the_same_however_the_bytes_are_cut(sent, data):
    stream = b"".join(sent)
    frames, got = Frames(), []
    while stream:
        size = data.draw(st.integers(1, len(stream)))
        got += frames.feed(stream[:size])
        stream = stream[size:]
    assert got == sent


def test_a_push_answers_nothing():
    assert is_push(b">1\r\n+message\r\n")
    assert not is_push(b"*1\r\n+message\r\n")
