"""A durable stream, live requests and a bus, with handlers that fail and a server that is away."""

from __future__ import annotations

from collections import Counter, defaultdict
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from anyio import create_task_group, move_on_after

from aiopatterns.backends.memory.backend import MemoryBackend
from aiopatterns.core.clock import monotonic, seeded, sleep
from aiopatterns.core.errors import (
    BackendError,
    NoHandlersError,
    RejectedError,
    RemoteError,
    RetryLater,
    TimeoutExceededError,
)
from aiopatterns.messaging import Broker, EventBus, Message, Stream, StreamConsumer
from aiopatterns.resilience.backoff import Constant
from tests.jobs.unreliable import Faults
from tests.messaging.stormy import Stormy
from tests.sweep.run import FOREVER

if TYPE_CHECKING:
    from tests.sweep.run import Run

__all__ = ["messaging"]

MESSAGES = 24
DELIVERIES = 3
PREFETCH = 4
ATTEMPTS = {"once": 0, "again": 1, "never": 99}  # how often a kind of message fails at first
CLAIM_IDLE = 3.0
SLACK = 1e-3


async def messaging(run: Run) -> None:
    """All three at once."""
    async with create_task_group() as tasks:
        for part in (over_a_stream, over_a_broker, over_a_bus):
            tasks.start_soon(part, run)
        run.step_clock(run.dice.choice([-3_600.0, 0.0, 3_600.0]))


class Unreliable:
    """A memory backend whose logs a consumer reaches through faults."""

    def __init__(self, server: MemoryBackend, faults: Faults) -> None:
        self._server = server
        self.faults = faults

    def __getattr__(self, name: str) -> Any:
        return getattr(self._server, name)

    def log(self, name: str) -> Any:
        return UnreliableLog(self._server.log(name), self.faults)

    async def __aenter__(self) -> Any:
        await self._server.__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._server.__aexit__(None, None, None)


class UnreliableLog:
    """The log behind it."""

    def __init__(self, log: Any, faults: Faults) -> None:
        self._log = log
        self._faults = faults

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._log, name)
        if name not in {"turn", "held"}:
            return method

        async def call(*args: Any) -> Any:
            return await self._faults(lambda: method(*args))

        return call


async def over_a_stream(run: Run) -> None:
    """Every message is done, in the order of its key if asked for, or a dead letter in the end."""
    shares = {kind: run.dice.choice([0.0, 0.05, 0.15]) for kind in ("before", "after", "late")}
    server, ordered = MemoryBackend("sweep"), run.chance(0.5)
    kinds = [run.dice.choice(["once", "once", "once", "again", "never"]) for _ in range(MESSAGES)]
    tries: Counter[int] = Counter()
    done: dict[str | None, list[int]] = defaultdict(list)
    working: Counter[str | None] = Counter()

    async def handle(message: Message) -> None:
        number: int = message.payload
        tries[number] += 1
        if ordered:
            working[message.key] += 1
            assert working[message.key] == 1
        try:
            await sleep(run.dice.random() * 0.05)
            if tries[number] <= ATTEMPTS[kinds[number]]:
                raise RetryLater(0.02) if run.chance(0.3) else ValueError(number)
            done[message.key].append(number)
        finally:
            working[message.key] -= ordered

    async with Stream("s", server) as stream:
        ways: list[Any] = [
            Unreliable(server, Faults(seeded(run.dice.getrandbits(32)), **shares)) for _ in range(3)
        ]
        consumers = [
            StreamConsumer(
                Stream("s", way),
                group="g",
                prefetch=PREFETCH,
                max_deliveries=DELIVERIES,
                claim_idle=CLAIM_IDLE,
                backoff=Constant(0.05),
            )
            for way in ways
        ]

        def check() -> None:
            for each in consumers:
                found = each.statistics()
                settled = found.acked + found.retried + found.dead + found.released + found.lost
                assert found.claimed == settled + found.in_hand

        run.always(check)
        key = (lambda message: message.key) if ordered else None
        async with create_task_group() as tasks:
            for each in consumers[1:]:
                tasks.start_soon(consume, each, handle, key)
            tasks.start_soon(crash, run, ways[0], consumers[0], handle, key)
            for number in range(MESSAGES):
                await stream.append(number, key=f"k{number % 3}")
                await sleep(run.dice.choice([0.0, 0.02]))
            deadline = monotonic() + 100
            while await stream.lag("g") or await stream.log.pending("g"):
                assert monotonic() < deadline
                await sleep(0.1)
            for each in consumers:
                each.stop()
        letters = await stream.dead_letters(group="g")
    dead = sorted(each.message.payload for each in letters if each.message is not None)
    assert dead == [number for number, kind in enumerate(kinds) if kind == "never"]
    ended = Counter(sum(done.values(), dead))
    assert ended.keys() == {*range(MESSAGES)}
    assert ended.total() - MESSAGES <= PREFETCH  # what the dead one had done and could not say
    firsts = [[*dict.fromkeys(numbers)] for numbers in done.values()]
    assert not ordered or all(numbers == sorted(numbers) for numbers in firsts)


async def consume(consumer: StreamConsumer, handle: Any, key: Any) -> None:
    await consumer.run(handle, concurrency=3, key=key)


async def crash(run: Run, way: Unreliable, consumer: StreamConsumer, *how: Any) -> None:
    """A consumer that dies with what it has in its hands."""
    async with create_task_group() as tasks:
        tasks.start_soon(consume, consumer, *how)
        await sleep(run.dice.random())
        way.faults.away = True
        tasks.cancel_scope.cancel()


async def over_a_broker(run: Run) -> None:
    """Every request ends, in its time; a message to a group is handled by one of it at most."""
    server = MemoryBackend("live")
    ways = [Stormy(server) for _ in range(3)]
    handled: Counter[int] = Counter()
    asked = 0

    async def handle(message: Message) -> int:
        handled[message.payload] += 1
        await sleep(run.dice.random() * 0.05)
        if run.chance(0.1):
            raise ValueError(message.payload)
        return message.payload

    async def serve(way: Any) -> None:
        for _ in range(2):
            with suppress(BackendError):
                async with (
                    Broker(way, grace=0.05) as broker,
                    await broker.subscribe("t.*", handle, group="g", concurrency=2, capacity=4),
                ):
                    await sleep(run.dice.random() * 2)

    async def ask(broker: Broker, first: int) -> None:
        nonlocal asked
        for number in range(first, first + 10):
            await sleep(run.dice.random() * 0.3)
            timeout, began = run.dice.choice([0.02, 1.0]), monotonic()
            with suppress(*refused), move_on_after(run.dice.choice([0.01, FOREVER, FOREVER])):
                assert await broker.request("t.a", number, timeout=timeout) == number
            assert monotonic() - began <= timeout + SLACK
            asked += 1

    async def storm() -> None:
        for _ in range(3):
            await sleep(run.dice.random())
            way = run.dice.choice(ways[1:])
            way.outage()
            await sleep(run.dice.random() * 0.5)
            way.back()

    refused = (RemoteError, NoHandlersError, TimeoutExceededError, RejectedError, BackendError)
    client: Any = ways[0]
    async with Broker(client) as broker, create_task_group() as tasks:
        for way in ways[1:]:
            tasks.start_soon(serve, way)
        for number in range(3):
            tasks.start_soon(ask, broker, number * 10)
        tasks.start_soon(storm)
    assert asked == 30
    assert broker.statistics().pending == 0
    assert not handled or max(handled.values()) == 1


async def over_a_bus(run: Run) -> None:
    """Every subscriber hears everything in order, whoever of them fails."""
    bus, heard = EventBus(), defaultdict[int, list[int]](list)

    def check() -> None:
        found = bus.statistics()
        assert found.published == found.done + found.dropped + found.queued + found.running

    run.always(check)

    def subscriber(place: int) -> Any:
        async def hear(number: int) -> None:
            await sleep(run.dice.choice([0.0, 0.01]))
            heard[place].append(number)
            if run.chance(0.2):
                raise ValueError(number)

        return hear

    for place in range(3):
        bus.subscribe(int, subscriber(place))
    for number in range(10):
        await bus.publish(number)
        await sleep(run.dice.choice([0.0, 0.02]))
    await sleep(1)
    assert heard == {place: [*range(10)] for place in range(3)}
