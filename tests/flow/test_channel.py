"""Channel: order, policies, watermarks, end of stream, and nothing lost whatever happens."""

from __future__ import annotations

import asyncio
from collections import deque

import anyio
import pytest
from anyio import ClosedResourceError, EndOfStream, WouldBlock
from anyio.abc import ObjectReceiveStream, ObjectSendStream
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.core.clock import rng, sleep, yield_now
from aiopatterns.core.errors import QueueFullError
from aiopatterns.flow.channel import Channel, ChannelStatistics
from aiopatterns.testing import Trial, cancel_everywhere, explore, fail_everywhere, simulate

OVERFLOWS = ("wait", "drop_new", "drop_old", "fail")


def balanced(channel, *, loose: bool = False) -> ChannelStatistics:
    """Assert the invariants that hold at every instant."""
    figures = channel.statistics()
    assert figures.sent == figures.received + figures.dropped + figures.queued
    # Capacity 0 holds what waiting receivers were promised; a batch that goes back may be above it.
    assert figures.queued <= figures.peak
    assert loose or figures.peak <= figures.capacity or not figures.capacity
    return figures


def rest(channel: Channel[int]) -> list[int]:
    """Take out what is queued."""
    return [channel.receive_nowait() for _ in range(channel.statistics().queued)]


async def test_is_both_of_anyios_streams_and_first_in_first_out():
    channel = Channel[int](3)
    assert isinstance(channel, ObjectSendStream)
    assert isinstance(channel, ObjectReceiveStream)
    for number in range(3):
        await channel.send(number)
    assert [await channel.receive() for _ in range(3)] == [0, 1, 2]
    assert balanced(channel) == ChannelStatistics(3, 0, 3, 3, 3, 0, 0, 0)
    assert repr(channel) == "<Channel 0/3 open>"


async def test_a_full_channel_makes_senders_wait_in_order():
    channel = Channel[int](1)
    async with asyncio.TaskGroup() as group:
        for number in range(4):
            group.create_task(channel.send(number))
            await yield_now()
        assert balanced(channel).waiting_senders == 3
        assert [await channel.receive() for _ in range(4)] == [0, 1, 2, 3]
    assert balanced(channel).waiting_senders == 0


async def test_an_empty_channel_makes_receivers_wait():
    channel = Channel[int](1)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(channel.receive())
        second = group.create_task(channel.receive())
        await yield_now()
        assert balanced(channel).waiting_receivers == 2
        await channel.send(1)
        await channel.send(2)
    assert {first.result(), second.result()} == {1, 2}


async def test_nowait_forms():
    channel = Channel[int](1)
    with pytest.raises(WouldBlock):
        channel.receive_nowait()
    channel.send_nowait(1)
    with pytest.raises(WouldBlock):
        channel.send_nowait(2)
    assert channel.receive_nowait() == 1
    channel.close()
    with pytest.raises(EndOfStream):
        channel.receive_nowait()
    with pytest.raises(ClosedResourceError):
        channel.send_nowait(3)
    assert balanced(channel).sent == 1


async def test_closing_lets_what_is_queued_be_received():
    channel = Channel[int](10)
    async with channel:
        await channel.send(1)
        await channel.send(2)
    await channel.aclose()
    assert repr(channel) == "<Channel 2/10 closed>"
    assert [item async for item in channel] == [1, 2]
    assert [item async for item in channel] == []
    with pytest.raises(EndOfStream):
        await channel.receive()
    with pytest.raises(EndOfStream):
        await channel.receive_many(3)


async def test_closing_wakes_whoever_waits():
    channel = Channel[int](1)
    channel.send_nowait(0)
    sender = asyncio.create_task(channel.send(1))
    await yield_now()
    await channel.aclose()
    with pytest.raises(ClosedResourceError):
        await sender
    other = Channel[int](1)
    receivers = [asyncio.create_task(other.receive()) for _ in range(3)]
    await yield_now()
    other.close()
    results = await asyncio.gather(*receivers, return_exceptions=True)
    assert [type(each) for each in results] == [EndOfStream] * 3
    assert balanced(channel).sent == 1


async def test_receive_many_takes_what_is_there():
    channel = Channel[int](10)
    for number in range(5):
        await channel.send(number)
    assert await channel.receive_many(3) == [0, 1, 2]
    assert await channel.receive_many(3) == [3, 4]
    assert balanced(channel).received == 5


def test_receive_many_waits_for_a_full_batch_within_the_time():
    async def run():
        channel = Channel[int](10)

        async def feed():
            for number in range(5):
                await channel.send(number)
                await sleep(1)

        async with asyncio.TaskGroup() as group:
            group.create_task(feed())
            assert await channel.receive_many(3, within=10) == [0, 1, 2]
            assert asyncio.get_running_loop().time() < 3
            assert await channel.receive_many(9, within=1.5) == [3, 4]
            channel.send_nowait(5)
            channel.close()
            assert await channel.receive_many(9, within=1000) == [5]
        balanced(channel)

    simulate(run)


def test_receive_many_collects_more_than_the_capacity():
    async def run():
        channel = Channel[int](2)

        async def feed():
            for number in range(7):
                await channel.send(number)

        async with asyncio.TaskGroup() as group:
            group.create_task(feed())
            assert await channel.receive_many(7, within=60) == list(range(7))

    simulate(run)


def test_a_cancelled_batch_goes_back_to_the_front():
    async def run():
        channel = Channel[int](10)
        channel.send_nowait(0)
        channel.send_nowait(1)
        task = asyncio.create_task(channel.receive_many(5, within=60))
        await sleep(1)
        assert channel.statistics().queued == 0
        waiting = asyncio.create_task(channel.receive())
        await yield_now()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await waiting == 0
        channel.send_nowait(2)
        assert await channel.receive_many(5) == [1, 2]
        assert balanced(channel).received == 3

    simulate(run)


async def test_without_waiting_each_side_gives_a_turn_every_64_items():
    channel = Channel[int](1000)
    turns = 0

    async def count_turns():
        nonlocal turns
        while True:
            turns += 1
            await yield_now()

    counter = asyncio.create_task(count_turns())
    await yield_now()
    before = turns
    for number in range(640):
        await channel.send(number)
    assert turns - before == 9
    for _ in range(320):
        await channel.receive()
    async for number in channel:
        if number == 639:
            break
    assert turns - before == 18
    counter.cancel()


async def test_a_turn_is_where_a_cancellation_arrives():
    channel = Channel[int](10_000)

    async def flood():
        while True:
            await channel.send(1)

    task = asyncio.create_task(flood())
    await yield_now()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert balanced(channel).queued <= 128


async def test_send_nowait_and_full_batches_count_towards_the_turn():
    channel = Channel[int](1000)
    for number in range(200):
        channel.send_nowait(number)
    assert balanced(channel).sent == 200
    await channel.send(200)
    assert len(await channel.receive_many(150)) == 150
    assert len(await channel.receive_many(150)) == 51
    assert balanced(channel).received == 201


async def test_capacity_zero_hands_over_one_to_one():
    channel = Channel[int](0)
    with pytest.raises(WouldBlock):
        channel.send_nowait(1)
    receiver = asyncio.create_task(channel.receive())
    await yield_now()
    channel.send_nowait(1)
    with pytest.raises(WouldBlock):
        channel.send_nowait(2)
    assert await receiver == 1
    async with asyncio.TaskGroup() as group:
        for number in range(5):
            group.create_task(channel.send(number))
        assert sorted([await channel.receive() for _ in range(5)]) == [0, 1, 2, 3, 4]
    assert balanced(channel).queued == 0


async def test_capacity_zero_keeps_the_item_of_a_receiver_that_was_cancelled():
    channel = Channel[int](0)
    first = asyncio.create_task(channel.receive())
    await yield_now()
    await channel.send(1)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    assert balanced(channel).queued == 1
    assert await channel.receive() == 1


async def test_capacity_zero_wakes_the_next_receiver():
    channel = Channel[int](0)
    first, second = (asyncio.create_task(channel.receive()) for _ in range(2))
    await yield_now()
    await channel.send(1)
    first.cancel()
    assert await second == 1
    assert first.cancelled()


async def test_drop_new_drops_the_item_that_is_sent():
    dropped: list[int] = []
    channel = Channel[int](2, overflow="drop_new", on_drop=dropped.append)
    for number in range(5):
        await channel.send(number)
    assert dropped == [2, 3, 4]
    assert balanced(channel).dropped == 3
    assert await channel.receive_many(9) == [0, 1]


async def test_drop_old_drops_the_oldest():
    dropped: list[int] = []
    channel = Channel[int](2, overflow="drop_old", on_drop=dropped.append)
    for number in range(5):
        channel.send_nowait(number)
    assert dropped == [0, 1, 2]
    assert await channel.receive_many(9) == [3, 4]
    assert balanced(channel).dropped == 3


async def test_fail_refuses_with_a_typed_error():
    channel = Channel[int](1, overflow="fail")
    await channel.send(1)
    with pytest.raises(QueueFullError, match=r"full \(1 items\)") as caught:
        await channel.send(2)
    assert caught.value.name == "channel"
    assert balanced(channel).sent == 1


async def test_dropping_forever_still_gives_turns():
    channel = Channel[int](1, overflow="drop_new")

    async def flood():
        while True:
            await channel.send(1)

    task = asyncio.create_task(flood())
    await yield_now()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    balanced(channel)


async def test_pressure_is_told_once_per_crossing():
    told: list[bool] = []
    channel = Channel[int](10, high_water=0.8, low_water=0.5, on_pressure=told.append)
    for number in range(10):
        channel.send_nowait(number)
        assert told == ([True] if number >= 7 else [])
    for left in range(9, -1, -1):
        channel.receive_nowait()
        assert told == ([True, False] if left <= 5 else [True])
    for number in range(9):
        channel.send_nowait(number)
    assert await channel.receive_many(8) == list(range(8))
    assert told == [True, False, True, False]


async def test_pressure_by_waiting_receive_and_iteration():
    told: list[bool] = []
    channel = Channel[int](1, high_water=1, low_water=0, on_pressure=told.append)
    channel.send_nowait(1)
    await channel.receive()
    channel.send_nowait(2)
    assert await anext(channel) == 2
    assert told == [True, False, True, False]


async def test_a_failing_pressure_callback_moves_nothing():
    def told(high: bool) -> None:
        raise ValueError(high)

    channel = Channel[int](2, high_water=1, low_water=0, on_pressure=told)
    channel.send_nowait(1)
    with pytest.raises(ValueError, match="True"):
        channel.send_nowait(2)
    assert balanced(channel).queued == 1
    channel.send_nowait(2)
    assert await channel.receive() == 1
    with pytest.raises(ValueError, match="False"):
        await channel.receive()
    assert balanced(channel).queued == 1
    assert await channel.receive_many(4) == [2]


async def test_a_failing_drop_callback_sends_nothing():
    def refuse(item: int) -> None:
        raise ValueError(item)

    channel = Channel[int](1, overflow="drop_old", on_drop=refuse)
    await channel.send(1)
    with pytest.raises(ValueError, match="1"):
        await channel.send(2)
    assert balanced(channel) == ChannelStatistics(1, 0, 1, 1, 0, 1, 0, 0)


async def test_callbacks_may_use_the_channel():
    channel: Channel[int]

    def shed(high: bool) -> None:
        if high:
            channel.receive_nowait()
        else:
            channel.send_nowait(99)

    channel = Channel[int](4, high_water=1, low_water=0.25, on_pressure=shed)
    for number in range(4):
        channel.send_nowait(number)
    assert balanced(channel).queued == 3
    assert [await channel.receive() for _ in range(4)] == [1, 2, 3, 99]
    balanced(channel)


async def test_producers_close_the_channel_with_the_last():
    channel = Channel[int](10)

    async def feed(producer, number: int) -> None:
        async with producer as into:
            await into.send(number)

    async with asyncio.TaskGroup() as group:
        for number in range(3):
            group.create_task(feed(channel.producer(), number))
        assert sorted([item async for item in channel]) == [0, 1, 2]
    with pytest.raises(ClosedResourceError):
        channel.producer()


async def test_a_producer_leaves_once():
    channel = Channel[int](10)
    first, second = channel.producer(), channel.producer()
    async with first:
        pass
    async with first:
        pass
    await channel.send(1)
    async with second:
        pass
    with pytest.raises(ClosedResourceError):
        await channel.send(2)


def test_serves_one_loop_after_another():
    channel = Channel[int](3)
    asyncio.run(channel.send(1))
    assert asyncio.run(channel.receive()) == 1


@pytest.mark.promise("flow-bad-input")
@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ({"capacity": -1}, ValueError, "capacity must be a whole number >= 0, not -1"),
        ({"capacity": 1.5}, TypeError, "capacity must be"),
        ({"capacity": True}, TypeError, "capacity must be"),
        ({"overflow": "drop"}, ValueError, "overflow must be one of 'wait', 'drop_new'"),
        ({"high_water": 1.1}, ValueError, "high_water must be between 0 and 1"),
        ({"high_water": float("nan")}, ValueError, "high_water must be"),
        ({"low_water": -0.1}, ValueError, "low_water must be between 0 and 1"),
        ({"low_water": 0.8}, ValueError, r"low_water must be below high_water \(0.8\), not 0.8"),
        ({"on_drop": 3}, TypeError, "on_drop must be a function"),
        ({"on_pressure": 3}, TypeError, "on_pressure must be a function"),
        ({"on_drop": sleep}, TypeError, "on_drop must be a plain function"),
        ({"on_pressure": sleep}, TypeError, "on_pressure must be a plain function"),
        ({"capacity": 0, "on_pressure": print}, ValueError, "on_pressure needs a capacity"),
    ],
)
def test_bad_arguments(given, error, text):
    with pytest.raises(error, match=text):
        Channel(**{"capacity": 10, **given})


@pytest.mark.promise("flow-bad-input")
async def test_bad_batches_take_nothing():
    channel = Channel[int](3)
    channel.send_nowait(1)
    with pytest.raises(ValueError, match="max must be"):
        await channel.receive_many(0)
    with pytest.raises(ValueError, match="within must be"):
        await channel.receive_many(1, within=0)
    assert balanced(channel).queued == 1


operations = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers()),
        st.tuples(st.just("receive"), st.none()),
        st.tuples(st.just("many"), st.integers(1, 5)),
    ),
    max_size=40,
)


@given(operations, st.integers(0, 4), st.sampled_from(OVERFLOWS))
def test_behaves_like_a_plain_deque(script, capacity, overflow):
    dropped: list[int] = []
    channel = Channel[int](capacity, overflow=overflow, on_drop=dropped.append)
    model: deque[int] = deque()
    lost: list[int] = []

    def put(item: int) -> type[Exception] | None:
        if len(model) < capacity:
            model.append(item)
        elif overflow == "wait":
            return WouldBlock
        elif overflow == "fail":
            return QueueFullError
        elif overflow == "drop_old" and model:
            lost.append(model.popleft())
            model.append(item)
        else:
            lost.append(item)
        return None

    for verb, value in script:
        if verb == "send":
            error = put(value)
            if error is None:
                channel.send_nowait(value)
            else:
                with pytest.raises(error):
                    channel.send_nowait(value)
        elif not model:
            with pytest.raises(WouldBlock):
                channel.receive_nowait()
        elif verb == "receive":
            assert channel.receive_nowait() == model.popleft()
        else:
            size = min(value, len(model))
            assert asyncio_free(channel.receive_many(value)) == [
                model.popleft() for _ in range(size)
            ]
        assert channel.statistics().queued == len(model)
        assert dropped == lost
        balanced(channel)


def asyncio_free(work):
    """Run a coroutine that never has to wait."""
    while True:
        try:
            work.send(None)
        except StopIteration as end:
            return end.value


class Exchange:
    """Producers and consumers over one channel, and what must hold whenever they are disturbed."""

    def __init__(self, capacity: int, *, batches: bool = False, overflow="wait") -> None:
        self.dropped: list[int] = []
        self.channel = Channel[int](
            capacity, overflow=overflow, high_water=0.9, on_drop=self.dropped.append
        )
        self.batches = batches
        self.sent: list[int] = []
        self.received: list[int] = []

    async def produce(self, numbers) -> None:
        for number in numbers:
            await self.channel.send(number)
            self.sent.append(number)
            if rng().random() < 0.3:
                await yield_now()

    async def consume(self) -> None:
        if self.batches:
            while True:
                try:
                    self.received += await self.channel.receive_many(3, within=0.01)
                except EndOfStream:
                    return
        async for number in self.channel:
            self.received.append(number)

    def check(self) -> None:
        figures = balanced(self.channel, loose=self.batches)
        assert figures.waiting_senders == figures.waiting_receivers == 0
        assert sorted(self.sent) == sorted([*self.received, *self.dropped, *rest(self.channel)])
        assert figures.received == len(self.received)


@pytest.mark.promise("flow-cancel-native", "flow-cancel-scope", "flow-cancel-timeout")
@pytest.mark.parametrize("batches", [False, True])
@pytest.mark.parametrize("capacity", [0, 1, 3])
@pytest.mark.parametrize("victim", ["producer", "consumer"])
def test_nothing_is_lost_by_a_cancellation_at_any_await(capacity, victim, batches):
    def scenario() -> Trial:
        exchange = Exchange(capacity, batches=batches)

        async def feed(place, numbers) -> None:
            async with place:
                await exchange.produce(numbers)

        async def producer() -> None:
            async with asyncio.TaskGroup() as group:
                for _ in range(2):
                    group.create_task(exchange.consume())
                await exchange.produce(range(8))
                exchange.channel.close()

        async def consumer() -> None:
            async with asyncio.TaskGroup() as group:
                for start in (0, 100):
                    place = exchange.channel.producer()
                    group.create_task(feed(place, range(start, start + 4)))
                await exchange.consume()

        return Trial(producer() if victim == "producer" else consumer(), exchange.check)

    cancel_everywhere(scenario, minimum=2)


@pytest.mark.promise("flow-fail-everywhere")
def test_nothing_is_lost_when_a_callback_fails_at_any_call():
    def scenario(fault) -> Trial:
        dropped: list[int] = []

        def on_drop(item: int) -> None:
            dropped.append(item)
            fault()

        channel = Channel[int](
            2, overflow="drop_old", on_drop=on_drop, on_pressure=lambda high: fault()
        )
        sent: list[int] = []
        received: list[int] = []

        async def work() -> None:
            for number in range(6):
                await channel.send(number)
                sent.append(number)
                if number % 2:
                    received.append(await channel.receive())

        def check() -> None:
            balanced(channel)
            assert sorted(sent) == sorted([*received, *dropped, *rest(channel)])

        return Trial(work(), check)

    fail_everywhere(scenario, minimum=4)


@pytest.mark.promise("flow-seeds", "flow-conservation")
@pytest.mark.parametrize("overflow", ["wait", "drop_old"])
@pytest.mark.parametrize("capacity", [0, 2])
def test_keeps_its_invariants_under_200_seeds(capacity, overflow):
    async def run() -> None:
        exchange = Exchange(capacity, overflow=overflow)

        async def disturb(victims) -> None:
            for victim in victims:
                await yield_now()
                victim.cancel()

        consumers = [asyncio.create_task(exchange.consume()) for _ in range(3)]
        producers = [
            asyncio.create_task(exchange.produce(range(at, at + 8))) for at in (0, 100, 200)
        ]
        survivor = asyncio.create_task(exchange.consume())
        await disturb([producers[0], consumers[0], consumers[1]])
        await asyncio.wait(producers)
        exchange.channel.close()
        await asyncio.wait([*consumers, survivor])
        exchange.check()
        assert exchange.channel.statistics().queued == 0

    explore(run, range(200))


async def test_works_with_anyio_scopes():
    channel = Channel[int](1)
    with anyio.move_on_after(0.001) as scope:
        await channel.receive()
    assert scope.cancelled_caught
    await channel.send(1)
    assert await channel.receive() == 1
    balanced(channel)
