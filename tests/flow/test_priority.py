"""PriorityChannel: the higher first, equals in order, under every policy."""

from __future__ import annotations

import asyncio

import pytest
from anyio import WouldBlock
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.core.clock import rng, yield_now
from aiopatterns.flow.priority import PriorityChannel
from aiopatterns.testing import Trial, cancel_everywhere, explore, simulate


async def test_higher_first_and_first_come_among_equals():
    channel = PriorityChannel[tuple[int, str]](10)
    for pair in [(0, "a"), (9, "b"), (9, "c"), (-1, "d"), (5, "e")]:
        await channel.send(pair)
    channel.close()
    assert [value async for _, value in channel] == ["b", "c", "e", "a", "d"]


async def test_key_gives_the_priority():
    channel = PriorityChannel[str](10, key=len)
    for word in ["a", "ccc", "bb", "ddd"]:
        channel.send_nowait(word)
    assert await channel.receive_many(9) == ["ccc", "ddd", "bb", "a"]


async def test_items_need_not_be_comparable():
    channel = PriorityChannel[tuple[int, object]](10)
    first, second = object(), object()
    await channel.send((1, first))
    await channel.send((1, second))
    assert (await channel.receive())[1] is first


async def test_drop_old_drops_what_matters_least():
    dropped: list[int] = []
    channel = PriorityChannel[int](
        2, key=lambda item: item // 10, overflow="drop_old", on_drop=dropped.append
    )
    for item in (10, 20, 11, 5, 30, 31):
        await channel.send(item)
    # 10 and 11 are equals and 10 is older; 5 is lower than all that wait; 11 is lower than 20.
    assert dropped == [10, 5, 11, 20]
    assert await channel.receive_many(9) == [30, 31]
    assert channel.statistics().dropped == 4


async def test_drop_old_with_nothing_queued_drops_the_item():
    dropped: list[int] = []
    channel = PriorityChannel[int](0, key=int, overflow="drop_old", on_drop=dropped.append)
    await channel.send(1)
    assert dropped == [1]


def test_a_cancelled_batch_keeps_its_order():
    async def run():
        channel = PriorityChannel[int](10, key=lambda item: item % 10)
        for item in (11, 21, 12):
            channel.send_nowait(item)
        task = asyncio.create_task(channel.receive_many(5, within=60))
        await yield_now()
        channel.send_nowait(31)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await channel.receive_many(9) == [12, 11, 21, 31]

    simulate(run)


@pytest.mark.promise("flow-bad-input")
async def test_items_without_a_priority_are_refused_and_not_sent():
    channel = PriorityChannel[object](3)
    for item in [7, ("high", 1), (1, 2, 3), None]:
        with pytest.raises(TypeError, match=r"item must be a pair \(priority, value\)"):
            await channel.send(item)
    with pytest.raises(ValueError, match="priority of an item must be a number, not nan"):
        await channel.send((float("nan"), 1))
    figures = channel.statistics()
    assert (figures.sent, figures.queued, figures.peak) == (0, 0, 0)


async def test_any_whole_number_is_a_priority():
    channel = PriorityChannel[tuple[float, str]](4)
    for item in ((float("inf"), "b"), (-(10**400), "d"), (10**400, "a"), (0, "c")):
        await channel.send(item)
    assert [(await channel.receive())[1] for _ in range(4)] == ["b", "a", "c", "d"]


@pytest.mark.promise("flow-bad-input")
def test_bad_arguments():
    with pytest.raises(TypeError, match="key must be a function, not 3"):
        PriorityChannel(3, key=3)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="key must be a plain function"):
        PriorityChannel(3, key=asyncio.sleep)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="capacity must be"):
        PriorityChannel(-1)


operations = st.lists(
    st.one_of(
        st.tuples(st.just("send"), st.integers(0, 3)), st.tuples(st.just("receive"), st.none())
    ),
    max_size=40,
)


@given(operations, st.integers(1, 4), st.sampled_from(["wait", "drop_new", "drop_old"]))
def test_behaves_like_a_sorted_list(script, capacity, overflow):
    channel = PriorityChannel[tuple[int, int]](capacity, overflow=overflow)
    model: list[tuple[int, int]] = []
    for number, (verb, priority) in enumerate(script):
        if verb == "receive":
            if model:
                first = min(model, key=lambda pair: (-pair[0], pair[1]))
                model.remove(first)
                assert channel.receive_nowait() == first
            else:
                with pytest.raises(WouldBlock):
                    channel.receive_nowait()
            continue
        item = (priority, number)
        if len(model) < capacity:
            model.append(item)
        elif overflow == "wait":
            with pytest.raises(WouldBlock):
                channel.send_nowait(item)
            continue
        elif overflow == "drop_old":
            model.append(item)
            model.remove(min(model))
        channel.send_nowait(item)
        figures = channel.statistics()
        assert figures.queued == len(model)
        assert figures.sent == figures.received + figures.dropped + figures.queued


def _scenario() -> Trial:
    channel = PriorityChannel[int](2, key=lambda item: item % 3)
    sent: list[int] = []
    received: list[int] = []

    async def consume() -> None:
        while True:
            received.extend(await channel.receive_many(2, within=0.01))

    async def work() -> None:
        async with asyncio.TaskGroup() as group:
            consumer = group.create_task(consume())
            for number in range(6):
                await channel.send(number)
                sent.append(number)
                if rng().random() < 0.5:
                    await yield_now()
            consumer.cancel()

    def check() -> None:
        figures = channel.statistics()
        assert figures.sent == figures.received + figures.queued
        assert sorted(sent) == sorted([*received, *(entry[2] for entry in channel._heap)])

    return Trial(work(), check)


@pytest.mark.promise("flow-cancel-native", "flow-cancel-scope", "flow-cancel-timeout")
def test_nothing_is_lost_by_a_cancellation_at_any_await():
    cancel_everywhere(_scenario, minimum=4)


@pytest.mark.promise("flow-seeds")
def test_keeps_its_invariants_under_200_seeds():
    async def run() -> None:
        trial = _scenario()
        await trial.work
        assert trial.check is not None
        trial.check()

    explore(run, range(200))
