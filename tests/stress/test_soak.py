"""Memory stays flat: many items through each pattern, and no more afterwards than before.

The short form runs with every test command; the long form by ``make stress``. There also all is
done at once for ``SOAK_MINUTES`` over one Redis that is killed every five minutes.
"""

from __future__ import annotations

import asyncio
import gc
import os
import tracemalloc
from collections import Counter
from contextlib import AsyncExitStack, contextmanager, suppress

import anyio
import pytest

from aiopatterns import Channel, Pipeline, WorkerPool, amap, produce_consume, stream_map
from aiopatterns.backends.redis.embedded import RedisServer
from aiopatterns.core.errors import BackendError
from tests.jobs.fleet import on_one_loop
from tests.stress.soaking import PARTS, Held, slope

pytestmark = pytest.mark.real
LONG = [pytest.mark.stress, pytest.mark.timeout(1_800)]
ROUNDS = [pytest.param(5_000, id="short"), pytest.param(300_000, id="long", marks=LONG)]
MIB_PER_100K = 1.0
LEAST = 0.1  # of it, however few the items are


async def echo(item: int) -> int:
    return item


async def through_channel(items: int) -> None:
    channel = Channel[int](100)

    async def feed() -> None:
        for item in range(items):
            await channel.send(item)
        channel.close()

    feeder = asyncio.create_task(feed())
    assert sum([1 async for _ in channel]) == items
    await feeder


async def through_amap(items: int) -> None:
    assert len(await amap(echo, range(items), limit=10)) == items


async def through_stream_map(items: int) -> None:
    async with stream_map(echo, range(items), limit=10) as results:
        assert sum([1 async for _ in results]) == items


async def through_pool(items: int) -> None:
    async with WorkerPool(echo, workers=4) as pool, pool.stream(range(items)) as outcomes:
        assert sum([1 async for _ in outcomes]) == items


async def through_pipeline(items: int) -> None:
    seen = 0

    async def count(batch: list[int]) -> None:
        nonlocal seen
        seen += len(batch)

    await Pipeline(range(items)).map(echo, workers=4).batch(100).run(into=count)
    assert seen == items


async def through_producers(items: int) -> None:
    report = await produce_consume([range(items)], echo)
    assert report.consumed == items


@pytest.mark.untraced
@pytest.mark.promise("flow-no-leaks")
@pytest.mark.parametrize("items", ROUNDS)
@pytest.mark.parametrize(
    "pattern",
    [
        through_channel,
        through_amap,
        through_stream_map,
        through_pool,
        through_pipeline,
        through_producers,
    ],
)
async def test_memory_stays_flat(pattern, items):
    await pattern(min(items, 20_000))  # warm-up: caches, free lists, histograms
    with measured() as grown:
        await pattern(items)
    assert grown[0] <= max(items / 100_000, LEAST) * MIB_PER_100K
    assert len(asyncio.all_tasks()) == 1


# ------------------------------------------------------------- rooms on a server, and all at once

MINUTES = float(os.environ.get("SOAK_MINUTES", "1"))
SIZES = {
    # By part: operations of the short form and of the long one.
    "jobs": (500, 300_000),
    "cache": (1_000, 300_000),
    "messages": (500, 100_000),
    "resilience": (1_000, 300_000),
}
SAMPLES = 40  # of the form in minutes; a third of them is warm-up
KILLS = 6
ROUND = 500
LASTING = """
local lasting = 0
for _, key in ipairs(redis.call('KEYS', '*')) do
  if redis.call('PTTL', key) == -1 then lasting = lasting + 1 end
end
return lasting
"""


@pytest.mark.untraced
@pytest.mark.leaves("{ap:log:*")
@pytest.mark.promise("fault-12-soak")
@pytest.mark.parametrize("long", [False, pytest.param(True, marks=LONG)], ids=["short", "long"])
@pytest.mark.parametrize(
    ("part", "where"),
    [
        ("jobs", "memory"),
        ("jobs", "redis"),
        ("cache", "redis"),
        ("messages", "redis"),
        ("resilience", "memory"),
    ],
)
@on_one_loop
async def test_a_room_leaves_nothing(part, where, long, request, figures):
    url = request.getfixturevalue("redis_url") if where == "redis" else "memory://"
    items = SIZES[part][long]
    before = Held.now()
    async with PARTS[part](url) as work:
        await work(min(items, 5_000))  # warm-up: caches, free lists, histograms
        with measured() as grown:
            await work(items)
    after = Held.now()
    allowed = max(items / 100_000, LEAST) * MIB_PER_100K
    figures.record("memory", grown[0], f"MiB more after {items:,} operations, at most {allowed:g}")
    assert grown[0] <= allowed
    assert (after.tasks, after.threads, after.files) == (before.tasks, before.threads, before.files)


@contextmanager
def measured():
    """Give a list in which, after the block, is how many MiB more Python has allocated."""
    grown: list[float] = []
    tracemalloc.start()
    try:
        gc.collect()
        before, _ = tracemalloc.get_traced_memory()
        yield grown
        gc.collect()
        grown.append((tracemalloc.get_traced_memory()[0] - before) / 2**20)
    finally:
        tracemalloc.stop()


class Soak:
    """All parts at once over one server, and what is seen of them from time to time."""

    def __init__(self, server: RedisServer) -> None:
        self.server = server
        self.done: Counter[str] = Counter()
        self.kills = 0
        self.samples: list[tuple[float, Held]] = []  # after so many operations
        self.server_seen: list[tuple[int, int]] = []  # keys without a life, clients
        self.over = False

    async def go_on(self, name: str, work) -> None:
        while not self.over:
            await work(ROUND)
            self.done[name] += ROUND
            await anyio.sleep(0.02)  # each gets its turn

    async def kill(self) -> None:
        for _ in range(KILLS):
            await anyio.sleep(MINUTES * 60 / (KILLS + 1))
            self.server.kill()
            await anyio.to_thread.run_sync(self.server.restart)
            self.kills += 1

    async def watch(self) -> None:
        """Look at what is held, and at what the server holds if it is there."""
        for _ in range(SAMPLES):
            await anyio.sleep(MINUTES * 60 / SAMPLES)
            self.samples.append((self.done.total() / 100_000, Held.now()))
            with suppress(OSError, BackendError):
                self.server_seen.append(await anyio.to_thread.run_sync(self.look))
        self.over = True

    def look(self) -> tuple[int, int]:
        clients = str(self.server.command("CLIENT", "LIST")).splitlines()
        lasting = self.server.command("EVAL", LASTING, 0)
        return int(str(lasting)), len(clients)

    async def run(self) -> None:
        async with AsyncExitStack() as stack:
            works = {
                name: await stack.enter_async_context(part(self.server.url))
                for name, part in PARTS.items()
            }
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(self.kill)
                async with anyio.create_task_group() as parts:
                    parts.start_soon(self.watch)
                    for name, work in works.items():
                        parts.start_soon(self.go_on, name, work)
                tasks.cancel_scope.cancel()

    def settled(self) -> list[tuple[float, Held]]:
        """The samples after the warm-up."""
        return self.samples[SAMPLES // 3 :]


@pytest.mark.stress
@pytest.mark.untraced
@pytest.mark.timeout(int(MINUTES * 60 + 300))
@pytest.mark.promise("fault-12-soak")
@on_one_loop
async def test_all_at_once_for_a_while_over_a_server_that_is_killed(figures):
    before = Held.now()
    with RedisServer(
        private=True, config={"appendonly": "yes", "appendfsync": "everysec"}
    ) as server:
        soak = Soak(server)
        await soak.run()
        lasting, _ = soak.look()
    after = Held.now()
    settled = soak.settled()
    grown = slope([(operations, held.memory) for operations, held in settled])
    done = ", ".join(f"{count:,} {name}" for name, count in soak.done.items())
    figures.record("operations", done, f"in {MINUTES:g} minutes, each checked; none was lost")
    figures.record("server killed", soak.kills, "times")
    figures.record("memory", grown, "MiB per 100,000 operations (slope), at most 1")
    figures.record("tasks", max(held.tasks for _, held in settled), f"at most; {after.tasks} after")
    figures.record("files", max(held.files for _, held in settled), f"at most; {after.files} after")
    figures.record("keys without a life", lasting, "in the end: the stream and the queue's own")
    assert soak.kills == KILLS
    assert grown <= MIB_PER_100K
    assert (after.tasks, after.files) == (before.tasks, before.files)
    assert after.threads <= before.threads + 2  # those in which this test kills and looks
    assert flat([held.tasks for _, held in settled])
    assert flat([held.files for _, held in settled])
    assert flat([keys for keys, _ in soak.server_seen])
    assert flat([clients for _, clients in soak.server_seen])


def flat(numbers: list[int]) -> bool:
    """Whether the second half goes no higher than the first, give or take a few at a time."""
    middle = len(numbers) // 2
    return max(numbers[middle:]) <= max(numbers[:middle]) + 3
