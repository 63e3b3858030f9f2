"""The event bus: one event to ten handlers, that wait for nothing and that do.

A contender publishes EVENTS events to HANDLERS async handlers and asserts that each handler got all
of them. Handlers run one after the other in the publisher's task in all of them, which is what
blinker's ``send_async`` does; the limit is ten plain awaited calls. Ours isolates errors, counts the
calls of each handler, and keeps its guard against recursion.

Goal: at most 0.5 of blinker.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from aiopatterns.core.clock import yield_now
from aiopatterns.messaging import EventBus
from benchmarks.harness import Bench
from benchmarks.resilience.peers import peer

EVENTS = 10_000
WAITING = 2_000
HANDLERS = 10

Handler = Callable[[Any], Awaitable[None]]

bench = Bench("messaging/bus", versions=("blinker",))
quick = bench.case("publish to 10 async handlers", clock="cpu", unit="us/event")
waiting = bench.case("publish to 10 handlers that suspend once", clock="cpu", unit="us/event")


@dataclass(frozen=True, slots=True)
class Created:
    """An event of the usual size."""

    id: int
    name: str = "somebody"


class Counter:
    """Ten handlers, and how often they were called."""

    def __init__(self) -> None:
        self.calls = 0

    def handlers(self, *, suspend: bool = False) -> list[Handler]:
        return [self._suspending() if suspend else self._quick() for _ in range(HANDLERS)]

    def _quick(self) -> Handler:
        async def handle(event: Any, **_: Any) -> None:
            self.calls += 1

        return handle

    def _suspending(self) -> Handler:
        async def handle(event: Any, **_: Any) -> None:
            self.calls += 1
            await yield_now()

        return handle


async def publish(send: Callable[[Any], Awaitable[object]], counter: Counter, events: int) -> int:
    event = Created(7)
    for _ in range(events):
        await send(event)
    assert counter.calls == events * HANDLERS
    return events


def subscribed(on: type | str, handlers: list[Handler], **terms: Any) -> EventBus:
    bus = EventBus()
    for handler in handlers:
        bus.subscribe(on, handler, **terms)
    return bus


async def bare(handlers: list[Handler], counter: Counter, events: int) -> int:
    async def send(event: Any) -> None:
        for handler in handlers:
            await handler(event)

    return await publish(send, counter, events)


@quick.ours("aiopatterns.EventBus, by type")
async def by_type() -> int:
    counter = Counter()
    return await publish(subscribed(Created, counter.handlers()).publish, counter, EVENTS)


@quick.ours("aiopatterns.EventBus, by pattern")
async def by_pattern() -> int:
    counter = Counter()
    bus = subscribed("user.*", counter.handlers())
    return await publish(lambda event: bus.publish(event, topic="user.created"), counter, EVENTS)


@quick.ours("aiopatterns.EventBus, with a timeout each")
async def with_timeouts() -> int:
    counter = Counter()
    bus = subscribed(Created, counter.handlers(), timeout=5)
    return await publish(bus.publish, counter, EVENTS)


@quick.limit("ten awaited calls")
async def bare_calls() -> int:
    counter = Counter()
    return await bare(counter.handlers(), counter, EVENTS)


@waiting.ours("aiopatterns.EventBus")
async def suspending() -> int:
    counter = Counter()
    bus = subscribed(Created, counter.handlers(suspend=True))
    return await publish(bus.publish, counter, WAITING)


@waiting.limit("ten awaited calls")
async def bare_suspending() -> int:
    counter = Counter()
    return await bare(counter.handlers(suspend=True), counter, WAITING)


if (blinker := peer("blinker")) is not None:

    def connected(handlers: list[Handler]) -> Any:
        signal = blinker.Signal()
        for handler in handlers:
            signal.connect(handler, weak=False)
        return signal

    @quick.peer("blinker send_async", follows="its docs, Signals: Async receivers")
    async def with_blinker() -> int:
        counter = Counter()
        signal = connected(counter.handlers())
        return await publish(signal.send_async, counter, EVENTS)

    @waiting.peer("blinker send_async", follows="its docs, Signals: Async receivers")
    async def blinker_suspending() -> int:
        counter = Counter()
        signal = connected(counter.handlers(suspend=True))
        return await publish(signal.send_async, counter, WAITING)

    quick.at_most(0.5, of="blinker send_async")


if __name__ == "__main__":
    bench.main()
