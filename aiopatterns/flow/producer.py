"""Producers and consumers: sources that make items, functions that use them, a bounded channel between.

The oldest pattern of all, with its three usual holes closed: memory that grows while consumers are
slow, an end of the stream that nobody announces, and a failure on one side that leaves the other
side hanging::

    source 1 --.      +---- Channel(capacity) ----+      .--> consumer(item)
    source 2 --+----->|  .  .  .  .  .  .  .  .   |------+--> consumer(item)
    source n --'      +---------------------------+      `--> ... `consumers` at a time
                full: sources wait (or overflow=)

Guarantees:

* At most ``capacity`` items wait, at most ``consumers`` calls run.
* The call ends when all sources have ended and every item was consumed. Then
  ``produced == consumed + failed + dropped``.
* The first failure leaves bare, with notes that say where it happened and how far the work was;
  everything else is cancelled and awaited before.
* Each call of the consumer sees the context variables of the caller, and none that another has set.

Not guaranteed: any order between sources or between consumers. One source with ``consumers=1``
keeps its order.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable
from contextvars import copy_context
from dataclasses import dataclass
from typing import (
    TYPE_CHECKING,
    ClassVar,
    Generic,
    Literal,
    TypeAlias,
    TypeGuard,
    TypeVar,
    cast,
    final,
    overload,
)

from anyio import create_task_group

from aiopatterns.core.clock import monotonic
from aiopatterns.core.context import run_in
from aiopatterns.core.notes import note
from aiopatterns.core.telemetry import Event, emit, listening
from aiopatterns.core.types import as_async_iterator, as_sink, close
from aiopatterns.core.validate import async_function, choice, count
from aiopatterns.flow.calls import NotAsyncError, as_failure, called, untouched
from aiopatterns.flow.channel import Channel

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence

    from aiopatterns.core.types import Sink, Source
    from aiopatterns.flow.channel import Overflow, Producer

__all__ = ["ConsumerFailed", "Feed", "Report", "produce_consume"]

T = TypeVar("T")

Pusher: TypeAlias = "Callable[[Callable[[T], Awaitable[None]]], Awaitable[object]]"
Feed: TypeAlias = "Iterable[T] | AsyncIterable[T] | Pusher[T]"


@final
@dataclass(frozen=True, slots=True)
class Report:
    """What became of the items; ``produced == consumed + failed + dropped``.

    Args:
        produced: Items that the sources made.
        consumed: Items for which the consumer returned.
        failed: Items for which it raised; above 0 only with ``errors="skip"``.
        dropped: Items that ``overflow`` dropped; above 0 only with ``"drop_new"``, ``"drop_old"``.
        elapsed: Seconds from start to end.
    """

    produced: int
    consumed: int
    failed: int
    dropped: int
    elapsed: float


@final
@dataclass(frozen=True, slots=True)
class ConsumerFailed(Event):
    """A consumer raised and the item was skipped.

    Args:
        error: What it raised.
    """

    name: ClassVar[str] = "aiopatterns.consumer.failed"
    level: ClassVar[str] = "warning"

    error: Exception


@overload
async def produce_consume(
    sources: Sequence[Feed[T]],
    consumer: Sink[T],
    *,
    consumers: int = 3,
    capacity: int = 100,
    errors: Literal["raise", "skip"] = "raise",
    overflow: Overflow = "wait",
    on_drop: Callable[[T], object] | None = None,
) -> Report: ...
@overload
async def produce_consume(
    sources: Feed[T],
    consumer: Sink[T],
    *,
    consumers: int = 3,
    capacity: int = 100,
    errors: Literal["raise", "skip"] = "raise",
    overflow: Overflow = "wait",
    on_drop: Callable[[T], object] | None = None,
) -> Report: ...
async def produce_consume(
    sources: Feed[T] | Sequence[Feed[T]],
    consumer: Sink[T],
    *,
    consumers: int = 3,
    capacity: int = 100,
    errors: Literal["raise", "skip"] = "raise",
    overflow: Overflow = "wait",
    on_drop: Callable[[T], object] | None = None,
) -> Report:
    """Run sources and consumers until everything that was produced is consumed.

    Args:
        sources: One source, or a list or tuple of them. A source is an iterable, an async iterable
            or an async function that is given ``send`` and awaits it for each item. A list of
            plain values is one source.
        consumer: Async function of one item, or an object send stream.
        consumers: How many items are consumed at a time, 1 or more.
        capacity: Most items that wait between the two sides.
        errors: ``"raise"`` the first failure, or ``"skip"`` items whose consumer fails: they are
            counted, and each is told as an event ``aiopatterns.consumer.failed``. A source that
            fails always ends everything.
        overflow: What becomes of an item when ``capacity`` is reached, as for
            :class:`~aiopatterns.flow.Channel`.
        on_drop: Synchronous function of one item, called for every dropped item.

    Returns:
        The figures.

    Raises:
        Exception: The first failure of a source or a consumer, bare.
        ValueError: A number is out of range, or a choice is not known.
        TypeError: A source or the consumer is not what it should be.

    Cancellation: cancels and awaits sources and consumers.

    Complexity: O(items) time, O(capacity) memory, a task for each source and consumer.

    Source: bounded buffer (Dijkstra, Cooperating sequential processes, 1965).

    Example::

        async def lines(send):
            async for line in reader:
                await send(line)


        report = await produce_consume(lines, store, consumers=4)
    """
    count("consumers", consumers)
    choice("errors", errors, ("raise", "skip"))
    feeds = _feeds(sources)
    for feed in feeds:
        if not _is_source(feed):
            async_function("sources", feed)
    sink = as_sink("consumer", consumer)
    channel = Channel[T](capacity, overflow=overflow, on_drop=on_drop)
    return await _Exchange(channel, sink, skips=errors == "skip").run(feeds, consumers)


@final
class _Exchange(Generic[T]):
    """One run."""

    __slots__ = (
        "_channel",
        "_consumed",
        "_consumer",
        "_failed",
        "_failure",
        "_group",
        "_skips",
        "_variables",
    )

    def __init__(
        self, channel: Channel[T], consumer: Callable[[T], Awaitable[object]], *, skips: bool
    ) -> None:
        self._channel = channel
        self._consumer = consumer
        self._skips = skips
        self._group = create_task_group()
        self._variables = copy_context()
        self._consumed = 0
        self._failed = 0
        self._failure: Exception | None = None

    async def run(self, feeds: Sequence[Feed[T]], consumers: int) -> Report:
        """Run everything to its end."""
        started = monotonic()
        places = [self._channel.producer() for _ in feeds]
        if not places:
            self._channel.close()
        async with self._group as group:
            for number, (place, feed) in enumerate(zip(places, feeds, strict=True)):
                group.create_task(self._produce(place, feed, number))
            for _ in range(consumers):
                group.create_task(self._consume())
        sent = self._channel.statistics()
        if self._failure is not None:
            note(self._failure, f"after {sent.sent} items produced, {self._consumed} consumed")
            raise self._failure
        return Report(sent.sent, self._consumed, self._failed, sent.dropped, monotonic() - started)

    async def _produce(self, place: Producer[T], feed: Feed[T], number: int) -> None:
        """Send what a source gives."""
        try:
            async with place:
                await self._drain(feed)
        except BaseException as error:
            self._fail(as_failure(error, f"source {number}"), f"raised by source {number}")

    async def _drain(self, feed: Feed[T]) -> None:
        if _is_source(feed):
            await self._send_all(feed)
        else:
            await called(cast("Pusher[T]", feed), self._channel.send, "sources")

    async def _send_all(self, source: Source[T]) -> None:
        items = as_async_iterator("sources", source)
        try:
            async for item in items:
                await self._channel.send(item)
        finally:
            await close(items)

    async def _consume(self) -> None:
        """Be a consumer."""
        try:
            await self._use_items()
        except BaseException as error:
            self._fail(as_failure(error, "a consumer"), "while it waited for an item")

    async def _use_items(self) -> None:
        async for item in self._channel:
            try:
                work = called(self._consumer, item, "consumer")
                fresh = untouched(self._variables)
                await (work if fresh else run_in(self._variables.copy(), work))
            except BaseException as error:
                self._bad(as_failure(error, "the consumer"))
            else:
                self._consumed += 1
            if self._group.cancel_scope.cancel_called:  # and the call has swallowed that
                return

    def _bad(self, error: Exception) -> None:
        """An item could not be consumed."""
        self._failed += 1
        if not self._skips or isinstance(error, NotAsyncError):
            self._fail(error, "raised by the consumer")
        elif listening():
            emit(ConsumerFailed(error))

    def _fail(self, error: Exception, where: str) -> None:
        """Keep the first failure and cancel everything."""
        if self._failure is None:
            note(error, where)
            self._failure = error
            self._group.cancel_scope.cancel()


def _feeds(sources: Feed[T] | Sequence[Feed[T]]) -> Sequence[Feed[T]]:
    """Return the sources one by one."""
    if isinstance(sources, (list, tuple)):
        each = cast("Sequence[object]", sources)
        found = [_is_feed(one) for one in each]
        if all(found) or not any(found):
            return cast("Sequence[Feed[T]]", sources if all(found) else (sources,))
        odd = each[found.index(False)]
        msg = f"sources must hold sources only, or items only, but {odd!r} is no source"
        raise TypeError(msg)
    if _is_feed(sources):
        return (cast("Feed[T]", sources),)
    msg = (
        "sources must be an iterable, an async iterable, an async function of send,"
        f" or a list of these, not {sources!r}"
    )
    raise TypeError(msg)


def _is_feed(value: object) -> bool:
    """Whether items can be taken from ``value``; a text is an item."""
    if isinstance(value, (str, bytes, bytearray)):
        return False
    return isinstance(value, (Iterable, AsyncIterable)) or callable(value)


def _is_source(feed: Feed[T]) -> TypeGuard[Source[T]]:
    return isinstance(feed, (Iterable, AsyncIterable))
