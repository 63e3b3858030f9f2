"""Known failures of other libraries that a channel must not have; each row is a named case."""

from __future__ import annotations

import asyncio

import anyio
import pytest
from anyio import ClosedResourceError, EndOfStream

from aiopatterns.core.clock import yield_now
from aiopatterns.flow import Channel, PriorityChannel
from aiopatterns.testing import explore, simulate


@pytest.mark.promise("regression-01-native-cancel-in-hand-over")
@pytest.mark.parametrize("capacity", [0, 1, 100])
async def test_native_cancel_between_hand_over_and_resume(capacity):
    # anyio #146: the item was in the hands of a receiver that never ran again.
    channel = Channel[int](capacity)
    first = asyncio.create_task(channel.receive())
    await yield_now()
    await channel.send(1)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    second = asyncio.create_task(channel.receive())
    await yield_now()
    assert await second == 1


@pytest.mark.promise("regression-01-native-cancel-in-hand-over")
@pytest.mark.parametrize("verb", ["receive", "send"])
async def test_a_wake_up_is_handed_on_by_a_cancelled_waiter(verb):
    channel = Channel[int](1)
    first: asyncio.Task[object]
    second: asyncio.Task[object]
    if verb == "send":
        channel.send_nowait(0)
        first, second = (asyncio.create_task(channel.send(n)) for n in (1, 2))
        await yield_now()
        assert await channel.receive() == 0
    else:
        first, second = (asyncio.create_task(channel.receive()) for _ in range(2))
        await yield_now()
        await channel.send(1)
    first.cancel()
    await second
    assert first.cancelled()
    if verb == "send":
        assert await channel.receive() == 2
    assert channel.statistics().queued == 0


@pytest.mark.promise("regression-02-timeout-in-turn-of-send")
def test_a_timeout_that_expires_in_the_turn_of_a_send():
    # 1 in 300 with anyio's stream and asyncio.timeout.
    async def run() -> None:
        channel = Channel[int](1)
        received: list[int] = []
        sent: list[int] = []

        async def consume() -> None:
            while True:
                try:
                    async with asyncio.timeout(1):
                        received.append(await channel.receive())
                except TimeoutError:
                    continue
                except EndOfStream:
                    return

        async def produce() -> None:
            for number in range(10):
                await anyio.sleep(1)
                await channel.send(number)
                sent.append(number)
            channel.close()

        async with asyncio.TaskGroup() as group:
            group.create_task(consume())
            group.create_task(consume())
            group.create_task(produce())
        assert sorted(received) == sent == list(range(10))

    explore(run, range(200))


@pytest.mark.promise("regression-02-timeout-in-turn-of-send")
def test_a_send_that_times_out_in_the_turn_of_a_receive_has_sent_or_has_not():
    async def run() -> None:
        channel = Channel[int](1)
        channel.send_nowait(0)
        sent = [0]

        async def produce() -> None:
            for number in range(1, 11):
                with anyio.move_on_after(1) as scope:
                    await channel.send(number)
                    sent.append(number)
                if scope.cancelled_caught:
                    assert number not in sent

        async def consume(received: list[int]) -> None:
            while True:
                await anyio.sleep(1)
                received.append(await channel.receive())

        received: list[int] = []
        consumer = asyncio.create_task(consume(received))
        await produce()
        consumer.cancel()
        await asyncio.wait([consumer])
        channel.close()
        received += [item async for item in channel]
        assert received == sent

    explore(run, range(200))


@pytest.mark.promise("regression-14-drops-reported")
@pytest.mark.parametrize("capacity", range(6))
@pytest.mark.parametrize("overflow", ["drop_new", "drop_old"])
@pytest.mark.parametrize("kind", [Channel, PriorityChannel])
async def test_every_dropped_item_is_reported_at_every_capacity(kind, overflow, capacity):
    # Kotlin #3330: at capacity 2 items were dropped in silence.
    dropped: list[object] = []
    channel = kind(capacity, overflow=overflow, on_drop=dropped.append)
    items = [(number % 3, number) for number in range(20)]
    for item in items:
        await channel.send(item)
    figures = channel.statistics()
    assert figures.dropped == len(dropped) == 20 - capacity
    channel.close()
    assert sorted([*dropped, *[item async for item in channel]]) == sorted(items)


@pytest.mark.promise("regression-10-senseless-numbers")
def test_senseless_numbers_are_refused():
    for capacity in (-1, 0.5, float("nan"), float("inf"), True, None, "3"):
        with pytest.raises((TypeError, ValueError), match="capacity must be"):
            Channel(capacity)  # type: ignore[arg-type]

    async def run() -> None:
        channel = Channel[int](1)
        channel.send_nowait(1)
        for most in (0, -1, 1.5):
            with pytest.raises((TypeError, ValueError), match="max must be"):
                await channel.receive_many(most)  # type: ignore[arg-type]
        for within in (0, -1, float("nan"), float("inf")):
            with pytest.raises(ValueError, match="within must be"):
                await channel.receive_many(1, within=within)
        assert channel.statistics().queued == 1

    simulate(run)


@pytest.mark.promise("regression-17-counters-across-await")
def test_the_counts_are_exact_with_many_tasks():
    async def run() -> None:
        channel = Channel[int](3)
        places = [channel.producer() for _ in range(5)]

        async def feed(place) -> None:
            async with place:
                for number in range(20):
                    await channel.send(number)

        async def drain() -> int:
            count = 0
            async for _ in channel:
                count += 1
                figures = channel.statistics()
                assert figures.sent == figures.received + figures.queued
            return count

        async with asyncio.TaskGroup() as group:
            for place in places:
                group.create_task(feed(place))
            counts = [group.create_task(drain()) for _ in range(4)]
        assert sum(each.result() for each in counts) == 100
        assert channel.statistics().received == channel.statistics().sent == 100

    explore(run, range(50))


@pytest.mark.promise("regression-24-wrong-loop-or-closed")
async def test_use_after_the_end_is_one_clear_error():
    channel = Channel[int](1)
    channel.close()
    for work in (channel.send(1), channel.receive(), channel.receive_many(1)):
        with pytest.raises((ClosedResourceError, EndOfStream)):
            await work
    with pytest.raises(ClosedResourceError):
        channel.producer()


@pytest.mark.promise("regression-24-wrong-loop-or-closed")
def test_a_channel_works_on_one_loop_after_another():
    channel = Channel[int](1)

    async def use() -> None:
        async with asyncio.TaskGroup() as group:
            waiting = group.create_task(channel.receive())
            await yield_now()
            await channel.send(1)
        assert waiting.result() == 1

    asyncio.run(use())
    asyncio.run(use())
    with pytest.raises(TimeoutError):
        asyncio.run(asyncio.wait_for(channel.receive(), 0.001))
    simulate(use)
