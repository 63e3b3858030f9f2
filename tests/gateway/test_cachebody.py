"""Bodies that may be kept: whole, too long, broken off, cancelled."""

from __future__ import annotations

import pytest

from aiopatterns.core.clock import sleep
from aiopatterns.gateway.cachebody import discard, gather
from aiopatterns.gateway.request import Response
from aiopatterns.testing import Trial, cancel_everywhere


class Source:
    """A body in chunks that may break, and knows whether it was closed."""

    def __init__(self, *chunks: bytes, error: Exception | None = None) -> None:
        self._chunks = iter(chunks)
        self._error = error
        self.closed = 0

    def __aiter__(self) -> Source:
        return self

    async def __anext__(self) -> bytes:
        await sleep(0)
        for chunk in self._chunks:
            return chunk
        if self._error is not None:
            raise self._error
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.closed += 1
        await sleep(0)


async def rest(response: Response) -> list[bytes]:
    assert not isinstance(response.body, bytes)
    return [chunk async for chunk in response.body]


async def test_what_fits_is_read_as_a_whole():
    source = Source(b"ab", b"cd")
    response = Response(200, [(b"content-length", b"4")], source)
    assert await gather(response, 4) == b"abcd"
    assert response.body == b"abcd"
    assert source.closed == 1


async def test_bytes_are_what_they_are():
    assert await gather(Response(200, [], b"abcd"), 4) == b"abcd"
    assert await gather(Response(200, [], b"abcde"), 4) is None


async def test_what_says_that_it_is_too_long_is_not_touched():
    source = Source(b"abcde")
    response = Response(200, [(b"content-length", b"5")], source)
    assert await gather(response, 4) is None
    assert response.body is source


async def test_what_turns_out_too_long_is_still_all_there():
    source = Source(b"ab", b"cd", b"e", b"f")
    response = Response(200, [], source)
    assert await gather(response, 4) is None
    before = source.closed
    assert before == 0
    assert await rest(response) == [b"ab", b"cd", b"e", b"f"]
    await response.aclose()
    assert source.closed == 1


async def test_it_can_be_closed_before_it_is_read():
    source = Source(b"abc", b"def")
    response = Response(200, [], source)
    assert await gather(response, 2) is None
    await response.aclose()
    assert source.closed == 1
    assert await rest(response) == [b"def"]


async def test_a_length_that_is_wrong_is_not_kept():
    assert await gather(Response(200, [(b"content-length", b"9")], b"abc"), 10) is None


async def test_what_breaks_off_is_closed():
    source = Source(b"ab", error=OSError("broken"))
    with pytest.raises(OSError, match="broken"):
        await gather(Response(200, [], source), 4)
    assert source.closed == 1


def test_cancelled_anywhere_it_is_closed():
    def scenario() -> Trial:
        source = Source(b"ab", b"cd")

        async def work() -> None:
            response = Response(200, [], source)
            await gather(response, 10)
            await discard(response)

        def check() -> None:
            assert source.closed

        return Trial(work(), check)

    cancel_everywhere(scenario, minimum=3)
