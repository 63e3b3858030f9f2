"""Live messages: memory and Redis keep the contract."""

from __future__ import annotations

from typing import Any

from aiopatterns.backends.records import Notice
from aiopatterns.core.clock import sleep
from aiopatterns.testing.conformance import PubSubConformance
from aiopatterns.testing.conformance_pubsub import _at_once
from tests.testing.homes import OnMemory, OnRedis


class TestMemory(OnMemory, PubSubConformance): ...


class TestRedis(OnRedis, PubSubConformance): ...


MESSAGE = Notice("channel", b"data")


class Subscription:
    """Has a message, sooner or later."""

    def __init__(self, delay: float) -> None:
        self.delay = delay

    async def __anext__(self) -> Notice:
        if self.delay:
            await sleep(self.delay)
        return MESSAGE


async def test_a_message_that_is_there_is_taken_and_no_other_is_waited_for():
    there: Any = Subscription(0)
    late: Any = Subscription(60)
    assert await _at_once(there) == [MESSAGE]
    assert await _at_once(late) == []
