"""The bus knows what its handlers get, and versions keep their types, under both checkers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import assert_type

from aiopatterns import EventBus
from aiopatterns.core.telemetry import Subscription
from aiopatterns.messaging import (
    BusStatistics,
    Envelopes,
    Form,
    Message,
    TopicTrie,
    Upcast,
    Upcasters,
)

bus = EventBus("users", errors="raise", max_depth=10, max_queued=100)


@dataclass(frozen=True, slots=True)
class UserCreated:
    id: int


class AdminCreated(UserCreated):
    pass


async def created(event: UserCreated) -> None:
    """Handle it."""


def audit(event: object) -> None:
    """Handle anything."""


assert_type(bus.subscribe(UserCreated, created), Subscription)
bus.subscribe(AdminCreated, created, once=True, timeout=1.0)
bus.subscribe(UserCreated, audit, priority=1, where=lambda event: event.id > 1)
bus.subscribe("user.*", created)
bus.subscribe(UserCreated, lambda event: event.id)

assert_type(bus.statistics(), BusStatistics)

trie = TopicTrie[int]()
trie.add("a.*", 1)
assert_type(trie.match("a.b"), tuple[int, ...])

upcasters = Upcasters().step("order", 1, dict).step("order", 2, dict, to=("purchase", 1))
assert_type(upcasters, Upcasters)
assert_type(upcasters.upcast("order", 1, {}), Upcast)
assert_type(upcasters.forms(), tuple[Form, ...])
assert_type(upcasters.check({("order", 1): {}})["order", 1], Upcast)


async def surface() -> None:
    await bus.publish(UserCreated(7), topic="user.created")
    message = Message(type="order", payload={"id": 17})
    envelopes = Envelopes()
    assert_type(envelopes.decode(envelopes.encode(message)), Message)
    assert_type(Envelopes.convert(message.payload, UserCreated), UserCreated)
    assert_type(upcasters.upcast_message(message), Message)
