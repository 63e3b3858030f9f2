"""The courier: order, batches, outages, what is not wanted any more, what is too much."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import Any

import anyio
from anyio import wait_all_tasks_blocked

from aiopatterns.backends.records import Notice
from aiopatterns.core.errors import (
    AioPatternsError,
    BackendError,
    BackendUnavailableError,
    ClosedError,
)
from aiopatterns.messaging import courier as module
from aiopatterns.messaging.courier import COURIERS, Courier


class Parcel:
    def __init__(self, number: int, channel: str = "c") -> None:
        self.channel = channel
        self.data = b"%d" % number
        self.wanted = True
        self.results: list[int | AioPatternsError] = []

    def told(self, result: int | AioPatternsError) -> None:
        self.results.append(result)


class PubSub:
    """Publishes when it is let."""

    def __init__(self, receivers: int = 1) -> None:
        self.batches: list[list[Notice]] = []
        self.receivers = receivers
        self.error: BackendError | None = None
        self.gate = anyio.Event()
        self.gate.set()

    async def publish_many(self, notices: list[Notice]) -> list[int]:
        self.batches.append(notices)
        await self.gate.wait()
        if self.error is not None:
            raise self.error
        return [self.receivers] * len(notices)


@asynccontextmanager
async def carrying(pubsub: Any, *, counts: bool = True):
    failed: list[BackendError] = []
    courier = Courier(pubsub, counts=counts, failed=failed.append)
    async with anyio.create_task_group() as group:
        for _ in range(COURIERS):
            group.start_soon(courier.carry)
        await wait_all_tasks_blocked()
        yield courier, failed
        group.cancel_scope.cancel()


async def test_what_is_posted_in_one_turn_leaves_in_one_batch():
    pubsub = PubSub()
    async with carrying(pubsub) as (courier, failed):
        parcels = [Parcel(n) for n in range(10)]
        assert all(courier.post(each) for each in parcels)
        assert len(courier) == 10
        await courier.flush()
        assert len(courier) == 0
    assert [[int(each.data) for each in batch] for batch in pubsub.batches] == [list(range(10))]
    assert [each.results for each in parcels] == [[1]] * 10
    assert failed == []


async def test_several_batches_are_under_way_and_leave_in_order():
    pubsub = PubSub()
    pubsub.gate = anyio.Event()
    async with carrying(pubsub) as (courier, _):
        for number in range(COURIERS + 2):
            courier.post(Parcel(number))
            await wait_all_tasks_blocked()
        assert [[int(each.data) for each in batch] for batch in pubsub.batches] == [
            [0], [1], [2], [3]
        ]  # fmt: skip
        pubsub.gate.set()
        await courier.flush()
    assert [int(each.data) for batch in pubsub.batches for each in batch] == list(range(6))


async def test_a_great_many_are_shared_by_the_couriers():
    pubsub = PubSub()
    async with carrying(pubsub) as (courier, _):
        for number in range(1_000):
            courier.post(Parcel(number))
        await courier.flush()
    assert max(map(len, pubsub.batches)) <= 256
    assert [int(each.data) for batch in pubsub.batches for each in batch] == list(range(1_000))


async def test_an_outage_is_told_to_each_by_an_error_of_its_own():
    pubsub = PubSub()
    pubsub.error = BackendUnavailableError("away")
    async with carrying(pubsub) as (courier, failed):
        parcels = [Parcel(n) for n in range(3)]
        for each in parcels:
            courier.post(each)
        await courier.flush()
        pubsub.error = None
        courier.post(last := Parcel(3))
        await courier.flush()
    errors = [each.results[0] for each in parcels]
    assert [str(each) for each in errors] == ["away"] * 3
    assert len({id(each) for each in errors}) == 3
    assert [str(each) for each in failed] == ["away"]
    assert last.results == [1]


async def test_what_is_not_wanted_any_more_is_not_sent():
    pubsub = PubSub()
    async with carrying(pubsub) as (courier, _):
        parcels = [Parcel(n) for n in range(3)]
        for each in parcels:
            courier.post(each)
        parcels[1].wanted = False
        await courier.flush()
    assert [int(each.data) for batch in pubsub.batches for each in batch] == [0, 2]
    assert [each.results for each in parcels] == [[1], [], [1]]


async def test_where_counts_say_nothing_everybody_has_received():
    async with carrying(PubSub(receivers=0), counts=False) as (courier, _):
        courier.post(parcel := Parcel(1))
        await courier.flush()
    assert parcel.results == [1]


async def test_too_many_are_refused(monkeypatch):
    monkeypatch.setattr(module, "MAX_OUTGOING", 2)
    courier = Courier(wrong(PubSub()), counts=True, failed=lambda error: None)
    assert [courier.post(Parcel(n)) for n in range(3)] == [True, True, False]
    await courier.finish()
    assert len(courier) == 0


async def test_closed_it_tells_all_that_may_not_have_left():
    pubsub = PubSub()
    pubsub.gate = anyio.Event()
    parcels = [Parcel(n) for n in range(4)]
    async with carrying(pubsub) as (courier, _):
        courier.post(parcels[0])
        courier.post(parcels[1])
        await wait_all_tasks_blocked()
    courier.post(parcels[2])
    parcels[1].wanted = False
    courier.close()
    assert courier.post(parcels[3])
    assert [[type(each) for each in parcel.results] for parcel in parcels] == [
        [ClosedError], [], [ClosedError], [ClosedError]
    ]  # fmt: skip
    assert len(courier) == 0


async def test_what_is_left_is_sent_without_couriers():
    pubsub = PubSub()
    courier = Courier(wrong(pubsub), counts=True, failed=lambda error: None)
    for number in range(300):
        courier.post(Parcel(number))
    await courier.finish()
    assert list(map(len, pubsub.batches)) == [256, 44]


def wrong(value: object) -> Any:
    """Hide from the type checker what it would refuse."""
    return value
