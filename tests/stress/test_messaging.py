"""Bus and broker, long form: a million calls of handlers, and a broker whose server comes and goes."""

from __future__ import annotations

import gc
import tracemalloc
from collections import Counter

import anyio
import pytest

from aiopatterns.backends.redis.embedded import RedisServer
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.errors import BackendUnavailableError, TimeoutExceededError
from aiopatterns.messaging import Broker, EventBus, Message

pytestmark = [pytest.mark.stress, pytest.mark.real]

MIB = 1_048_576


class Measured:
    """What memory was taken since it was made."""

    def __init__(self) -> None:
        gc.collect()
        tracemalloc.start()
        self.before = tracemalloc.get_traced_memory()[0]

    def grown(self) -> int:
        gc.collect()
        after = tracemalloc.get_traced_memory()[0]
        tracemalloc.stop()
        return after - self.before


@pytest.mark.timeout(120)
def test_a_bus_takes_no_memory_however_much_passes_through_it():
    """100,000 messages to 10 handlers, while others come and go: at most 1 MiB more."""
    seen = Counter[str]()

    async def body() -> int:
        bus = EventBus()
        for _ in range(10):
            bus.subscribe("user.*", lambda _: seen.update(["kept"]))
        measured: Measured | None = None
        for number in range(120_000):
            if number == 20_000:
                measured = Measured()
            guest = bus.subscribe(f"user.{number % 1_000}", lambda _: seen.update(["guest"]))
            await bus.publish(number, topic=f"user.{number % 1_000 if number % 2 else 17}")
            guest.close()
        assert measured is not None
        return measured.grown()

    grown = anyio.run(body)
    print(f"{sum(seen.values())} calls, {grown / 1_024:.0f} KiB grown")
    assert seen["kept"] == 1_200_000
    assert grown <= MIB


@pytest.mark.timeout(180)
def test_a_broker_whose_server_comes_and_goes_forgets_nothing_and_keeps_nothing():
    """Ten restarts under load: no request outlives its deadline, and memory stays flat."""
    ended, slowest, stop = Counter[str](), 0.0, False

    async def echo(message: Message) -> object:
        return message.payload

    async def caller(broker: Broker) -> None:
        nonlocal slowest
        while not stop:
            started = monotonic()
            try:
                assert await broker.request("echo", 17, timeout=2.0) == 17
                ended["ok"] += 1
            except (BackendUnavailableError, TimeoutExceededError):
                ended["failed"] += 1
                await sleep(0.01)
            slowest = max(slowest, monotonic() - started)

    async def answered(more: int) -> None:
        goal = ended["ok"] + more
        with anyio.fail_after(30):
            while ended["ok"] < goal:
                await sleep(0.02)

    async def body() -> int:
        nonlocal stop
        with RedisServer(private=True) as server:
            async with Broker(server.url) as here, Broker(server.url) as there:
                await there.subscribe("echo", echo, group="g")
                async with anyio.create_task_group() as tasks:
                    for _ in range(100):
                        tasks.start_soon(caller, here)
                    await answered(5_000)
                    measured = Measured()
                    for _ in range(10):
                        server.kill()
                        await sleep(0.3)
                        await anyio.to_thread.run_sync(server.restart)
                        await answered(2_000)
                    grown = measured.grown()
                    stop = True
                assert here.statistics().pending == 0
                return grown

    grown = anyio.run(body)
    print(f"{dict(ended)}, the slowest took {slowest:.1f} s, {grown / 1_024:.0f} KiB grown")
    assert slowest < 2.0 + 3.0  # of a busy machine
    assert grown <= MIB
