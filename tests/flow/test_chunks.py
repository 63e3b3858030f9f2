"""Sizes that follow the measured time, and a source that several ask for chunks."""

from __future__ import annotations

from typing import Any

import pytest
from anyio import create_task_group

from aiopatterns.core.clock import sleep, yield_now
from aiopatterns.flow.chunks import Chunk, Feed, Sizes
from aiopatterns.testing import explore


def sizes(fixed=None):
    return Sizes(fixed, aim=0.02, workers=2)


async def stream(n):
    for i in range(n):
        await yield_now()
        yield i


def test_sizes_follow_the_measured_time():
    each = sizes()
    assert each.next(None) == 1
    each.learn(1, 0.0001)
    assert each.next(None) == 8
    each.learn(8, 0.0008)
    assert each.next(None) == 64
    each.learn(64, 0.0064)
    assert each.next(None) == 200
    assert each.next(100) == 13
    assert each.next(1) == 1
    each.learn(200, 2.0)
    assert each.next(None) == 2
    for _ in range(9):
        each.learn(each.next(None), 0.0)
    assert each.next(None) == 16384
    assert sizes(5).next(1) == 5


async def test_a_plain_source():
    feed = Feed(range(5), sizes(2))
    assert not feed.waits
    assert await feed.next() == Chunk(0, 0, [0, 1])
    assert await feed.next() == Chunk(1, 2, [2, 3])
    assert await feed.next() == Chunk(2, 4, [4])
    assert await feed.next() is None
    await feed.close()


async def test_learning_changes_the_next_size():
    feed = Feed(iter(range(20)), sizes())
    first = await feed.next()
    assert first == Chunk(0, 0, [0])
    feed.learn(first, 0.001)
    assert await feed.next() == Chunk(1, 1, list(range(1, 9)))


@pytest.mark.promise("flow-seeds")
def test_an_async_source_goes_once_to_those_who_ask():
    async def scenario():
        feed, got = Feed(stream(11), sizes(2)), []
        assert feed.waits

        async def ask():
            while (chunk := await feed.next()) is not None:
                got.append(chunk)
                await sleep(chunk.number % 3)

        async with create_task_group() as group:
            group.start_soon(feed.pump)
            for _ in range(3):
                group.start_soon(ask)
        assert sorted(got) == [
            Chunk(n, 2 * n, list(range(2 * n, min(2 * n + 2, 11)))) for n in range(6)
        ]

    explore(scenario, range(200))


async def test_nothing_is_pulled_that_nobody_has_asked_for():
    pulled = []

    async def source():
        for i in range(10):
            pulled.append(i)
            yield i

    feed = Feed(source(), sizes(3))
    async with create_task_group() as group:
        group.start_soon(feed.pump)
        await yield_now()
        await yield_now()
        assert pulled == []
        assert await feed.next() == Chunk(0, 0, [0, 1, 2])
        await yield_now()
        assert pulled == [0, 1, 2]
        group.cancel_scope.cancel()


async def test_an_error_of_the_source_says_whose_it_is():
    def lying():
        yield 1
        raise LookupError("x")

    async def flowing():
        yield 1
        raise LookupError("x")

    plain = Feed(lying(), sizes(1))
    await plain.next()
    with pytest.raises(LookupError) as caught:
        await plain.next()
    assert caught.value.__notes__ == ["map_reduce: raised by the source after 1 items"]
    feed, errors = Feed(flowing(), sizes(1)), []

    async def pump():
        try:
            await feed.pump()
        except LookupError as error:
            errors.append(error)

    async with create_task_group() as group:
        group.start_soon(pump)
        assert await feed.next() == Chunk(0, 0, [1])
        assert await feed.next() is None
    assert errors[0].__notes__ == ["map_reduce: raised by the source after 1 items"]


def test_what_cannot_be_iterated_is_refused():
    wrong: Any = 3
    with pytest.raises(TypeError, match="source must be an iterable"):
        Feed(wrong, sizes())
