"""The task that writes a body while it is streamed, beside the one that reads the answer.

A service may answer before it has read all of the body, and some cannot read on before their
answer is read; so neither side waits for the other::

    client ---> Upload ---> Pump ---> Connection ---> service
                                           '---> Answer ---> client

Guarantees: never more than one chunk and the loop's buffer is held; a service that takes nothing
for ``idle`` seconds is a timeout; a body that breaks closes the connection, so what has come of it
never looks whole.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, Protocol, final

from anyio import CancelScope, Event, move_on_after

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

__all__ = ["Pump", "Sink"]

_END: Final = b"0\r\n\r\n"


class Sink(Protocol):
    """Where the body goes."""

    writable: bool

    def put(self, data: bytes) -> None:
        """Write some of it."""
        ...

    async def drained(self) -> None:
        """Wait until more may be written."""
        ...

    def sent(self) -> None:
        """Note that all of it was written."""
        ...

    def late(self) -> None:
        """Give up: nothing was taken in time."""
        ...

    def spoilt(self, error: Exception) -> None:
        """Give up: the body cannot be had to its end."""
        ...


@final
class Pump:
    """Writes one body; :meth:`run` is the task.

    Args:
        sink: Where to.
        chunks: The body.
        chunked: Whether it goes in chunks of HTTP, for want of a length.
        idle: Seconds that the service may take nothing.
    """

    __slots__ = ("_chunked", "_chunks", "_ended", "_idle", "_scope", "_sink")

    def __init__(
        self, sink: Sink, chunks: AsyncIterator[bytes], *, chunked: bool, idle: float
    ) -> None:
        self._sink = sink
        self._chunks = chunks
        self._chunked = chunked
        self._idle = idle
        self._scope = CancelScope()
        self._ended = Event()

    async def run(self) -> None:
        """Write the body to its end, or until it is cancelled or breaks."""
        try:
            with self._scope:
                await self._write()
        finally:
            self._ended.set()

    def cancel(self) -> None:
        """Write no more of it."""
        self._scope.cancel()

    async def settled(self) -> None:
        """Wait until nothing of it is read any more."""
        await self._ended.wait()

    async def _write(self) -> None:
        sink = self._sink
        try:
            async for chunk in self._chunks:
                sink.put(b"%x\r\n%b\r\n" % (len(chunk), chunk) if self._chunked else chunk)
                if not sink.writable:
                    await self._drain()
        except Exception as error:
            sink.spoilt(error)
            return
        if self._chunked:
            sink.put(_END)
        sink.sent()

    async def _drain(self) -> None:
        with move_on_after(self._idle) as waiting:
            await self._sink.drained()
        if waiting.cancelled_caught:
            self._sink.late()
