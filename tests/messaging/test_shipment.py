"""Shipments: who gets a copy, what happens to one that finds nobody."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import anyio
import pytest

from aiopatterns.core.clock import Home
from aiopatterns.core.codec import MSGPACK
from aiopatterns.core.errors import BackendUnavailableError, CodecError, QueueFullError
from aiopatterns.messaging.draft import Draft
from aiopatterns.messaging.frames import Delivery, open_frame
from aiopatterns.messaging.listing import Listed, Listing
from aiopatterns.messaging.routes import Plan, Routes
from aiopatterns.messaging.scribe import Scribe
from aiopatterns.messaging.shipment import Notification, Shipment

SCRIBE = Scribe(MSGPACK, max_bytes=1_000)


class Post:
    """Takes parcels and tells how it went when it is asked to."""

    def __init__(self) -> None:
        self.parcels: list[Any] = []
        self.full = False

    def post(self, parcel: Any) -> bool:
        if not self.full:
            self.parcels.append(parcel)
        return not self.full

    def sent(self) -> list[tuple[str, tuple[int, ...]]]:
        frames = [(each.channel, open_frame(each.data)) for each in self.parcels]
        return [(to, each.numbers) for to, each in frames if isinstance(each, Delivery)]


def routes(**brokers: Sequence[str | None]) -> Routes:
    made = Routes("me")

    def listing(groups: Sequence[str | None]) -> Listing:
        return Listing(1, tuple(Listed(n, "t", group) for n, group in enumerate(groups, 1)))

    for listed in listing(brokers.pop("me", ())).subscriptions:
        made.list_here(listed)
    made.heed({name: listing(groups).encode() for name, groups in brokers.items()})
    return made


def shipped(of: Routes, post: Post, payload: object = 1) -> tuple[Shipment, list[int], Plan]:
    near: list[int] = []

    def deliver(number: int, draft: Draft) -> None:
        draft.message()
        near.append(number)

    shipment = Shipment(
        Draft("7a", "t", payload, ("event", None, 1, None, None), scribe=SCRIBE),
        of.here,
        home=Home(),
        courier=wrong(post),
        deliver=deliver,
    )
    plan = of.plan("t")
    shipment.ship(plan.each, plan.groups)
    return shipment, near, plan


async def test_each_broker_gets_one_copy_with_all_its_numbers():
    post = Post()
    shipment, near, _ = shipped(routes(me=[None, "g"], a=[None, None, "h"], b=[None]), post)
    assert sorted(near) == [1, 2]
    assert sorted(post.sent()) == [("broker:a", (1, 2, 3)), ("broker:b", (1,))]
    assert all(each.wanted for each in post.parcels)
    async with anyio.create_task_group() as group:

        async def tell() -> None:
            for each in post.parcels:
                each.told(1)

        group.start_soon(tell)
        await shipment
    await shipment
    assert shipment.lost == 0


async def test_a_groups_copy_goes_on_until_somebody_gets_it():
    for _ in range(20):  # whoever is the first by chance
        post = Post()
        of = routes(a=["g"], b=["g"], me=["g"])
        shipment, near, plan = shipped(of, post)
        told = 0
        while told < len(post.parcels):
            post.parcels[told].told(0)
            told += 1
        await shipment
        assert near == [1]  # this broker is always there
        assert shipment.lost == 0
        gone = [place.peer for place in plan.groups[0].places if place.peer.gone_until]
        assert len(gone) == len({each.channel for each in post.parcels}) == told


async def test_a_group_of_which_nobody_is_left_is_lost():
    post = Post()
    shipment, _, _ = shipped(routes(a=["g"], b=["g", None]), post)
    for number in range(3):
        if number < len(post.parcels):
            post.parcels[number].told(0)
    await shipment
    assert shipment.lost == 1
    again = Shipment(
        shipment.draft, routes().here, home=Home(), courier=wrong(post), deliver=wrong(None)
    )
    again.ship((), (wrong(Nobody()),))
    await again
    assert again.lost == 1


class Nobody:
    def pick(self) -> None:
        return None


async def test_errors_are_raised_when_all_copies_are_out():
    post = Post()
    shipment, _, _ = shipped(routes(a=[None], b=[None]), post)
    post.parcels[0].told(BackendUnavailableError("away"))
    post.parcels[1].told(1)
    with pytest.raises(BackendUnavailableError, match="away"):
        await shipment
    post.full = True
    shipment, _, _ = shipped(routes(a=[None]), post)
    with pytest.raises(QueueFullError, match="too many messages"):
        await shipment


async def test_what_cannot_be_written_reaches_nobody():
    for brokers in ({"me": [None]}, {"me": [None], "a": [None]}):
        post = Post()
        with pytest.raises(CodecError):
            shipped(routes(**wrong(brokers)), post, object())
        assert post.parcels == []


def test_a_notification_lets_it_be():
    notification = Notification("broker:a", b"data")
    notification.told(0)
    assert (notification.channel, notification.data, notification.wanted) == (
        "broker:a",
        b"data",
        True,
    )


def wrong(value: object) -> Any:
    """Hide from the type checker what it would refuse."""
    return value
