"""Bodies that may be kept: read as a whole if they are small enough, else passed on as they come.

::

    a b c|            fits: whole
    a b c d e f ...   too long after d: [a b c d] is given out, then e f ... as it comes
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from anyio import CancelScope

from aiopatterns.gateway.cachecontrol import seconds

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiopatterns.gateway.request import Chunks, Response

__all__ = ["discard", "gather"]


async def gather(response: Response, most: int) -> bytes | None:
    """Read the body of an answer, if it has at most so many bytes.

    Args:
        response: The answer. If its body is longer, that is still all there afterwards.
        most: Bytes at most.

    Returns:
        The body, or None if it is longer, or not as long as the answer says.

    Raises:
        Exception: The body does not come to its end; the answer is closed then.

    Cancellation: closes the answer.
    """
    told = next((value for name, value in response.headers if name == b"content-length"), None)
    if told is not None and seconds(told) > most:
        return None
    if not isinstance(response.body, bytes):
        response.body = await _read(response.body, most)
    body = response.body
    if not isinstance(body, bytes) or len(body) > most:
        return None
    return body if told is None or seconds(told) == len(body) else None


async def discard(response: Response) -> None:
    """Let go of an answer that nobody wants.

    Cancellation: is raised when that is done.
    """
    with CancelScope(shield=True):
        await response.aclose()


async def _read(chunks: Chunks, most: int) -> bytes | Chunks:
    """Read chunks; return them as a whole, or what gives them out from the first on."""
    held: list[bytes] = []
    size = 0
    source = aiter(chunks)
    try:
        async for chunk in source:
            held.append(chunk)
            size += len(chunk)
            if size > most:
                return _Resumed(held, source, chunks)
    except BaseException:
        with CancelScope(shield=True):
            await chunks.aclose()
        raise
    await chunks.aclose()
    return b"".join(held)


@final
class _Resumed:
    """A body whose beginning was read already.

    Args:
        held: What was read.
        source: Where the rest comes from.
        chunks: What has to be closed.
    """

    __slots__ = ("_chunks", "_held", "_source")

    def __init__(self, held: list[bytes], source: AsyncIterator[bytes], chunks: Chunks) -> None:
        self._held = held[::-1]
        self._source = source
        self._chunks = chunks

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Return itself."""
        return self

    async def __anext__(self) -> bytes:
        """Return what was read, then the rest."""
        return self._held.pop() if self._held else await anext(self._source)

    async def aclose(self) -> None:
        """Give up what is behind it."""
        self._held.clear()
        await self._chunks.aclose()
