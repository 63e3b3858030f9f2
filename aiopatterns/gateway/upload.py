"""The body of a request on its way to a service: checked against its length while it is streamed.

Both transports read a client's body through an :class:`Upload`. It tells apart whose fault it is
when a request does not get through: an error of the client's body stays what it was, while a
broken connection becomes an error of the service.

Guarantees: a body that is shorter or longer than was announced never looks whole to the service;
its connection is closed instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from aiopatterns.core.errors import RequestRefusedError

if TYPE_CHECKING:
    from collections.abc import AsyncIterable, AsyncIterator, Callable

__all__ = ["Upload"]

_NOT_AS_LONG: Final = "the body is not as long as Content-Length says"


def _ignore(*_: object) -> None:
    """Do nothing."""


@final
class Upload:
    """A body that is streamed; iterate over it once.

    Args:
        chunks: The body.
        length: Bytes that were announced, or None.
        moved: Called whenever a chunk has come, and at the end.

    Attributes:
        failure: The error that ended it early: that of the chunks, or a 400 for a wrong length.
        broke: Called with that error; may be replaced.
    """

    __slots__ = ("_chunks", "_left", "_moved", "broke", "failure")

    def __init__(
        self,
        chunks: AsyncIterable[bytes],
        length: int | None,
        *,
        moved: Callable[[], object] = _ignore,
    ) -> None:
        self._chunks: AsyncIterator[bytes] = aiter(chunks)
        self._left = length
        self._moved = moved
        self.failure: Exception | None = None
        self.broke: Callable[[Exception], object] = _ignore

    def __aiter__(self) -> Upload:
        """Return this upload."""
        return self

    async def __anext__(self) -> bytes:
        """Return the next chunk, never an empty one.

        Raises:
            RequestRefusedError: It is not as long as was announced.
        """
        try:
            chunk = await self._next()
        except StopAsyncIteration:
            self._moved()
            raise
        except Exception as error:
            self.failure = error
            self.broke(error)
            raise
        self._moved()
        return chunk

    async def _next(self) -> bytes:
        try:
            chunk = await anext(self._chunks)
            while not chunk:
                chunk = await anext(self._chunks)
        except StopAsyncIteration:
            if self._left:
                raise RequestRefusedError(_NOT_AS_LONG, status=400) from None
            raise
        if self._left is not None:
            self._left -= len(chunk)
            if self._left < 0:
                raise RequestRefusedError(_NOT_AS_LONG, status=400)
        return chunk
