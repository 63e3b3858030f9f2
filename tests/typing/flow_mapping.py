"""What the type checkers must know about channels, maps and produce_consume."""

from __future__ import annotations

from typing import TYPE_CHECKING, assert_type

from anyio.abc import ObjectReceiveStream, ObjectSendStream

from aiopatterns.core.outcome import Err, Ok
from aiopatterns.flow import (
    Channel,
    MapStatistics,
    PriorityChannel,
    Report,
    StreamMap,
    amap,
    produce_consume,
    stream_map,
)
from aiopatterns.resilience import Retry

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable


async def fetch(number: int) -> str:
    return str(number)


async def numbers() -> AsyncIterator[int]:
    yield 1


async def push(send: Callable[[int], Awaitable[None]]) -> None:
    await send(1)


async def store(number: int) -> None:
    del number


async def channels() -> None:
    channel = Channel[int](10, on_drop=lambda item: assert_type(item, int))
    sender: ObjectSendStream[int] = channel
    receiver: ObjectReceiveStream[int] = channel
    await sender.send(1)
    assert_type(await receiver.receive(), int)
    assert_type(await channel.receive_many(3, within=0.1), list[int])
    assert_type(channel.receive_nowait(), int)
    async for item in channel:
        assert_type(item, int)
    async with channel.producer() as into:
        await into.send(2)
    urgent = PriorityChannel[tuple[int, str]](10)
    await urgent.send((1, "a"))
    assert_type(await urgent.receive(), tuple[int, str])
    by_length = PriorityChannel[str](10, key=len)
    assert_type(await by_length.receive(), str)


async def maps() -> None:
    assert_type(await amap(fetch, [1, 2], limit=3), list[str])
    assert_type(await amap(fetch, numbers(), 3), list[str])
    results = stream_map(fetch, range(3), 3, ordered=True, retry=Retry(on=OSError), timeout=1.0)
    assert_type(results, StreamMap[str])
    async with results as entered:
        async for text in entered:
            assert_type(text, str)
        assert_type(entered.statistics(), MapStatistics)
    async with stream_map(fetch, numbers(), errors="skip") as texts:
        assert_type(await anext(texts), str)
    async with stream_map(fetch, numbers(), errors="collect") as outcomes:
        async for outcome in outcomes:
            assert_type(outcome, Ok[str] | Err)
            if outcome.ok:
                assert_type(outcome.unwrap(), str)


async def producers() -> None:
    assert_type(await produce_consume(range(3), store), Report)
    assert_type(await produce_consume(numbers(), store, consumers=2), Report)
    assert_type(await produce_consume(push, store), Report)
    assert_type(await produce_consume([push, push], store), Report)
    assert_type(await produce_consume([range(3), range(4)], store), Report)
    assert_type(await produce_consume([1, 2, 3], store), Report)
    assert_type(await produce_consume([range(3)], Channel[int](3)), Report)
