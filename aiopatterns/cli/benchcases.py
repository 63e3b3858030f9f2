"""What ``aiopatterns bench`` measures within this process: flow, resilience, cache, events.

Each case is a function that does so many operations, asserts that they were done, and is measured
from outside. The functions of the user are empty, so what is told is what the library costs.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, TypeAlias, final

from anyio import create_task_group

from aiopatterns.cache.aside import Cache
from aiopatterns.flow.channel import Channel
from aiopatterns.flow.mapping import amap
from aiopatterns.flow.pipeline import Pipeline
from aiopatterns.flow.pool import WorkerPool
from aiopatterns.messaging.bus import EventBus
from aiopatterns.resilience.breaker import CircuitBreaker
from aiopatterns.resilience.bulkhead import Bulkhead
from aiopatterns.resilience.ratelimit import Rate, TokenBucket
from aiopatterns.resilience.retry import Retry
from aiopatterns.resilience.stack import Stack
from aiopatterns.resilience.timeout import Timeout

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AsyncExitStack

    from aiopatterns.cli.calibration import Run

__all__ = ["LOCAL", "Case", "Opened"]

#: Opens what a case needs, on a stack that closes it, and returns what is measured.
Opened: TypeAlias = "Callable[[AsyncExitStack], Awaitable[Run]]"

_ENDLESS: Final = Rate(1e9)


@final
@dataclass(frozen=True, slots=True)
class Case:
    """One question.

    Args:
        group: What it belongs to.
        name: What one operation is.
        open: Opens what it needs.
    """

    group: str
    name: str
    open: Opened


async def noop(item: object = None) -> object:
    """Be the function of a user."""
    return item


async def _await(count: int) -> None:
    for _ in range(count):
        await noop()


async def _channel(count: int) -> None:
    channel = Channel[int](100)

    async def produce() -> None:
        async with channel.producer():
            for number in range(count):
                await channel.send(number)

    received = 0
    async with create_task_group() as tasks:
        tasks.start_soon(produce)
        async for _ in channel:
            received += 1
    assert received == count


async def _amap(count: int) -> None:
    assert len(await amap(noop, range(count), limit=100)) == count


async def _pool(count: int) -> None:
    async with WorkerPool(noop, workers=8) as pool, pool.stream(range(count)) as outcomes:
        done = [each async for each in outcomes]
    assert len(done) == count


async def _pipeline(count: int) -> None:
    pipeline = Pipeline(range(count)).map(noop, workers=8).filter(_always).map(noop)
    assert (await pipeline.run(into=_drop)).delivered == count


def _always(_: object) -> bool:
    return True


async def _drop(_: object) -> None:
    """Be the sink of a pipeline."""


async def _guarded(call: Callable[[object], Awaitable[object]], count: int) -> None:
    """Call a function with policies around it."""
    for _ in range(count):
        await call(None)


async def _cached(count: int) -> None:
    async with Cache[str, int]("bench", ttl=60) as cache:
        await cache.set("key", 1)
        for _ in range(count):
            assert await cache.get("key") == 1


async def _bus(count: int) -> None:
    bus = EventBus()
    bus.subscribe("order.*", noop)
    bus.subscribe("order.created", noop)
    for number in range(count):
        await bus.publish(number, topic="order.created")


def _plain(run: Run) -> Opened:
    """Return the opening of a case that needs nothing."""

    async def opened(_: AsyncExitStack) -> Run:
        return run

    return opened


def _policies() -> dict[str, Run]:
    """Return a call through each policy."""
    breaker = CircuitBreaker("bench")
    stack = Stack(Timeout(10), Retry(on=OSError), CircuitBreaker("stack"), TokenBucket(_ENDLESS))
    wrapped = {
        "a call with a retry": Retry(on=OSError)(noop),
        "a call with a timeout": Timeout(10)(noop),
        "a call through a circuit breaker": breaker(noop),
        "a call through a bulkhead": Bulkhead(10)(noop),
        "a call through a token bucket": TokenBucket(_ENDLESS)(noop),
        "a call through four policies": stack(noop),
    }
    return {name: partial(_guarded, call) for name, call in wrapped.items()}


def _local() -> tuple[Case, ...]:
    flow: dict[str, Run] = {
        "await an async function, for scale": _await,
        "hand an item over by a channel": _channel,
        "map an item by amap": _amap,
        "an item through a worker pool": _pool,
        "an item through a pipeline of three stages": _pipeline,
    }
    memory: dict[str, Run] = {
        "get a value that is cached": _cached,
        "publish an event to two handlers": _bus,
    }
    groups = {"flow": flow, "resilience": _policies(), "cache, events": memory}
    return tuple(
        Case(group, name, _plain(run))
        for group, runs in groups.items()
        for name, run in runs.items()
    )


#: The cases that need no backend.
LOCAL: Final = _local()
