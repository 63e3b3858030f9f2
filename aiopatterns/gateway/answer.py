"""What has come of one answer, and the reader who takes it: the half of a connection that waits.

A connection's parser puts in, one task takes out::

    parser ---- headed ----> status, headers
           ---- put -------> chunks ----> async for
           ---- finish ----> ended                      all of it is here: whole()
           ---- fail ------> error                      what came before is still read

Nothing here touches a socket. What the reader does not take is bounded: above the high-water mark
the connection reads no more until the reader has taken all of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, final

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiopatterns.core.clock import Alarms, Home, Parked
    from aiopatterns.gateway.request import Headers

__all__ = ["Answer", "Source"]

# Bytes that wait for the reader: as many as one read of a socket brings.
_HIGH_WATER: Final = 64 * 1024


class Source(Protocol):
    """The connection behind an answer."""

    def pause(self) -> None:
        """Read no more for now."""
        ...

    def resume(self) -> None:
        """Go on reading."""
        ...

    def late(self) -> None:
        """Give up: nothing came in time."""
        ...

    def drop(self) -> None:
        """Close the connection; the answer comes to no end."""
        ...

    async def settled(self) -> None:
        """Wait until nothing of the request is read any more."""
        ...


@final
class Answer:
    """An answer, from the moment that its request is on its way.

    Args:
        home: The loop of its reader.
        source: Where it comes from.
        silence: Bounds the wait for the next chunk.

    Attributes:
        status: 200 to 599; 0 until the head is there.
        headers: As they came, names in lower case.
        ended: Whether the body has come to its end.
        error: What ended it early.
    """

    __slots__ = (
        "_chunks",
        "_held",
        "_home",
        "_parked",
        "_paused",
        "_silence",
        "_source",
        "ended",
        "error",
        "headers",
        "status",
    )

    def __init__(self, home: Home, source: Source, silence: Alarms) -> None:
        self._home = home
        self._source = source
        self._silence = silence
        self._parked: Parked | None = None
        self._chunks: list[bytes] = []
        self._held = 0
        self._paused = False
        self.status: int = 0
        self.headers: Headers = []
        self.ended: bool = False
        self.error: Exception | None = None

    # What the connection says.

    def headed(self, status: int, headers: Headers) -> None:
        """Take the head."""
        self.status = status
        self.headers = headers
        self._wake()

    def put(self, chunk: bytes) -> None:
        """Take some of the body."""
        self._chunks.append(chunk)
        self._held += len(chunk)
        if self._held > _HIGH_WATER and not self._paused:
            self._paused = True
            self._source.pause()
        if self._parked is not None:
            self._wake()

    def finish(self) -> None:
        """Note that all of it is here."""
        self.ended = True
        if self._parked is not None:
            self._wake()

    def fail(self, error: Exception) -> None:
        """Note that no more will come, and why."""
        self.error = error
        self._wake()

    # What the reader does.

    def arrival(self) -> Parked:
        """Return what to await until something has come; for one task at a time."""
        parked = self._parked = self._home.future()
        return parked

    def whole(self) -> bytes | None:
        """Return the body if all of it is here, else None."""
        return self._take() if self.ended else None

    def __aiter__(self) -> AsyncIterator[bytes]:
        """Return this answer."""
        return self

    async def __anext__(self) -> bytes:
        """Return what has come since.

        Raises:
            UpstreamError: It does not come to its end.

        Cancellation: the connection is closed.
        """
        while not self._chunks:
            if self.error is not None:
                raise self.error
            if self.ended:
                raise StopAsyncIteration
            await self._wait()
        return self._take()

    async def aclose(self) -> None:
        """Close the connection, unless the whole answer has come."""
        if not self.ended:
            self._source.drop()
        await self._source.settled()

    async def _wait(self) -> None:
        late = self._source.late
        self._silence.arm(late)
        try:
            await self.arrival()
        except BaseException:
            self._source.drop()
            raise
        finally:
            self._silence.disarm(late)

    def _take(self) -> bytes:
        chunks, self._chunks = self._chunks, []
        self._held = 0
        if self._paused:
            self._paused = False
            self._source.resume()
        return chunks[0] if len(chunks) == 1 else b"".join(chunks)

    def _wake(self) -> None:
        parked, self._parked = self._parked, None
        if parked is not None and not parked.done():  # else its task was cancelled
            parked.set_result(None)
