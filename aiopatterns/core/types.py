"""The vocabulary of shapes: what goes in, what comes out.

A *source* is anything items can be taken from: a plain iterable, an async iterable, or an anyio
object receive stream (which is an async iterable too). A *sink* is anything that takes items: an
async function of one item, or an anyio object send stream.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterable, AsyncIterator, Generator, Iterable
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar, cast

from anyio import CancelScope
from anyio.abc import ObjectSendStream

from aiopatterns.core.clock import yield_now
from aiopatterns.core.validate import async_function

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine, Iterator

__all__ = [
    "AsyncFn",
    "Coro",
    "Key",
    "Seconds",
    "Sink",
    "Source",
    "as_async_iterator",
    "as_sink",
    "close",
]

T = TypeVar("T")
T_contra = TypeVar("T_contra", contravariant=True)

AsyncFn: TypeAlias = "Callable[[T_contra], Awaitable[T]]"
Coro: TypeAlias = "Coroutine[Any, Any, T]"
Key: TypeAlias = "str | bytes | int"
Seconds: TypeAlias = float
Source: TypeAlias = "Iterable[T] | AsyncIterable[T]"
Sink: TypeAlias = "Callable[[T], Awaitable[object]] | ObjectSendStream[T]"

# An endless plain iterable must not starve the loop: one forced turn in this many items.
_TURN = 64


def as_async_iterator(name: str, source: Source[T]) -> AsyncIterator[T]:
    """Iterate over any source.

    Args:
        name: The caller's parameter, for the error message.
        source: An iterable, an async iterable or an object receive stream.

    Returns:
        An async iterator; if the source is a plain iterable it gives the loop a turn every 64
        items. A generator is left to the caller to :func:`close`.

    Raises:
        TypeError: ``source`` is none of the three.
    """
    if isinstance(source, AsyncIterable):
        return aiter(source)
    if isinstance(source, Iterable):
        return _Iterated(iter(source))
    msg = (
        f"{name} must be an iterable, an async iterable or an object receive stream, not {source!r}"
    )
    raise TypeError(msg)


async def close(items: object) -> None:
    """Close what is left of a generator, also of one that :func:`as_async_iterator` iterates over.

    Nothing else is closed: it belongs to its owner.

    Cancellation: a cancel scope's waits until the generator has ended; ``Task.cancel()`` reaches it.
    """
    if isinstance(items, _Iterated):
        items = cast("_Iterated[object]", items).items
    if isinstance(items, AsyncGenerator):
        with CancelScope(shield=True):
            await items.aclose()
    elif isinstance(items, Generator):
        items.close()


def as_sink(name: str, sink: Sink[T]) -> Callable[[T], Awaitable[object]]:
    """Return the function that gives one item to ``sink``.

    Args:
        name: The caller's parameter, for the error message.
        sink: An async function of one item, or an object send stream.

    Raises:
        TypeError: ``sink`` is neither; a plain ``def`` is no async function.
    """
    if isinstance(sink, ObjectSendStream):
        return sink.send  # pyright: ignore[reportUnknownMemberType, reportUnknownVariableType]  # isinstance loses T
    if callable(sink):
        return async_function(name, sink)
    msg = f"{name} must be an async function of one item or an object send stream, not {sink!r}"
    raise TypeError(msg)


class _Iterated(AsyncIterator[T]):
    """A plain iterator seen as an async one; not a generator, so leaving it needs no wait."""

    __slots__ = ("_until_turn", "items")

    def __init__(self, items: Iterator[T]) -> None:
        self.items = items
        self._until_turn = _TURN

    async def __anext__(self) -> T:
        self._until_turn -= 1
        if not self._until_turn:
            self._until_turn = _TURN
            await yield_now()
        for item in self.items:
            return item
        raise StopAsyncIteration
