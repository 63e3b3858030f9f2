"""Any source can be iterated over, any sink can be given items."""

from __future__ import annotations

from itertools import pairwise

import anyio
import pytest

from aiopatterns.core.types import as_async_iterator, as_sink, close
from aiopatterns.testing import simulate


async def collected(source):
    return [item async for item in as_async_iterator("source", source)]


async def numbers():
    for n in range(3):
        yield n


async def test_plain_async_and_stream_sources():
    send, receive = anyio.create_memory_object_stream[int](3)
    for n in range(3):
        await send.send(n)
    await send.aclose()
    assert await collected(receive) == [0, 1, 2]
    await receive.aclose()
    assert await collected(range(3)) == [0, 1, 2]
    assert await collected(numbers()) == [0, 1, 2]
    assert await collected([]) == []


async def test_an_error_of_the_source_leaves_as_it_is():
    def failing():
        yield 1
        raise KeyError("lost")

    items = as_async_iterator("source", failing())
    assert await anext(items) == 1
    with pytest.raises(KeyError, match="lost"):
        await anext(items)
    with pytest.raises(StopAsyncIteration):
        await anext(items)


def test_a_plain_source_gives_the_loop_a_turn_in_64_items():
    async def turns():
        seen = []
        taken = 0

        async def watch():
            while True:
                seen.append(taken)
                await anyio.sleep(0)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(watch)
            async for _ in as_async_iterator("source", range(640)):
                taken += 1
            tasks.cancel_scope.cancel()
        return seen

    seen = simulate(turns)
    assert len(seen) >= 10
    assert max(b - a for a, b in pairwise(seen)) <= 64


async def test_functions_and_streams_are_sinks():
    got = []

    async def take(item):
        got.append(item)

    await as_sink("sink", take)(1)
    send, receive = anyio.create_memory_object_stream[int](1)
    await as_sink("sink", send)(2)
    got.append(receive.receive_nowait())
    assert got == [1, 2]
    await send.aclose()
    await receive.aclose()


@pytest.mark.promise("core-bad-input")
@pytest.mark.parametrize("wrong", [None, 5, len], ids=repr)
def test_what_is_no_source_is_refused(wrong):
    with pytest.raises(TypeError, match="source must be an iterable, an async iterable"):
        as_async_iterator("source", wrong)


@pytest.mark.promise("core-bad-input")
@pytest.mark.parametrize("wrong", [None, 5, "x"], ids=repr)
def test_what_is_no_sink_is_refused(wrong):
    with pytest.raises(TypeError, match="sink must be an async function of one item"):
        as_sink("sink", wrong)


@pytest.mark.promise("core-bad-input")
def test_a_plain_function_is_no_sink():
    def plain(item):
        return item

    with pytest.raises(TypeError, match="sink must be an async function, not the plain function"):
        as_sink("sink", plain)


async def test_close_closes_generators_and_nothing_else():
    closed = []

    def gen():
        try:
            yield 1
        finally:
            closed.append("sync")

    async def agen():
        try:
            yield 1
        finally:
            closed.append("async")

    sync, asynchronous = gen(), agen()
    iterated = as_async_iterator("source", gen())
    next(sync)
    await anext(asynchronous)
    await anext(iterated)
    await close(sync)
    await close(asynchronous)
    await close(iterated)
    await close([1])
    await close(as_async_iterator("source", [1]))
    assert closed == ["sync", "async", "sync"]
