"""Three processes with a near and a far tier each, over a bad network; and shards in memory."""

from __future__ import annotations

from collections import Counter
from contextlib import AsyncExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from anyio import create_task_group, move_on_after

from aiopatterns.backends.memory.backend import MemoryBackend
from aiopatterns.cache import MISSING, ShardedCache, Ttl
from aiopatterns.core.clock import sleep
from tests.cache.shaky import Shaky, shared
from tests.sweep.run import FOREVER, Inside

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.sweep.run import Run

__all__ = ["cache"]

KEYS = [f"k:{number}" for number in range(5)]
PROCESSES = 3


class Source:
    """Rows that only grow, and the loaders that read them."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.rows: Counter[str] = Counter()
        self.loads: Counter[str] = Counter()

    async def load(self, key: str) -> list[Any]:
        row = self.rows[key]
        self.loads[key] += 1
        await sleep(self.run.dice.choice([0.0, 0.02, 0.2]))
        return [key, row]

    async def load_many(self, keys: list[str]) -> dict[str, Any]:
        return {key: await self.load(key) for key in keys}

    def change(self, keys: list[str]) -> dict[str, int]:
        """Commit a change; returns what each row is now at least."""
        for key in keys:
            self.rows[key] += 1
        return {key: self.rows[key] for key in keys}


async def cache(run: Run) -> None:
    """Both kinds at once."""
    async with create_task_group() as tasks:
        tasks.start_soon(near_and_far, run)
        tasks.start_soon(in_shards, run)


def tag_of(key: str) -> str:
    return f"tag-{KEYS.index(key) % 2}"


async def near_and_far(run: Run) -> None:
    """No error, nothing in a process that it has invalidated itself, and all agree in the end."""
    server, source = MemoryBackend(), Source(run)
    faults = run.dice.choice([0.0, 0.03, 0.08])
    ways = [Shaky(server, delay=0.02, faults=faults) for _ in range(PROCESSES)]
    ttl = Ttl(5, stale=run.dice.choice([0, 5]), jitter=0.1)
    caches = [shared(way, ttl=ttl, max_size=run.dice.choice([3, 100])) for way in ways]

    async def read(cache: Any) -> None:
        for _ in range(6):
            with move_on_after(run.dice.choice([0.01, FOREVER, FOREVER])):
                key = run.dice.choice(KEYS)
                if run.chance(0.7):
                    found = {key: await cache.get_or_load(key, source.load, tags=[tag_of(key)])}
                else:
                    alike = [each for each in KEYS if tag_of(each) == tag_of(key)]
                    found = await cache.get_or_load_many(
                        alike, source.load_many, tags=[tag_of(key)]
                    )
                assert all(value[0] == each for each, value in found.items())
            await sleep(run.dice.random() * 0.5)

    async def write(cache: Any, own: str) -> None:
        for number in range(4):
            await sleep(run.dice.random())
            key = run.dice.choice(KEYS)
            rows = await change(cache, key)
            value = await cache.get_or_load(key, source.load, tags=[tag_of(key)])
            assert value[1] >= rows[key]
            await cache.set(own, number)
            assert await cache.get(own) in {number, MISSING}

    async def change(cache: Any, key: str) -> dict[str, int]:
        """A change that is invalidated in one of the ways there are."""
        match run.dice.randrange(6):
            case 0 if faults == 0.0:  # a tag's entries are known where they were loaded
                rows = source.change([key])
                await cache.invalidate_tags(tag_of(key))
            case 1:
                rows = source.change(KEYS)
                await cache.clear()
            case _:
                rows = source.change([key])
                await cache.invalidate(key)
        return rows

    async with AsyncExitStack() as stack:
        for cache in caches:
            await stack.enter_async_context(cache)
        async with create_task_group() as tasks:
            for number, cache in enumerate(caches):
                tasks.start_soon(read, cache)
                tasks.start_soon(read, cache)
                tasks.start_soon(write, cache, f"own-{number}")
            run.step_clock(run.dice.choice([-3_600.0, 0.0, 3_600.0]))
        for way in ways:
            way.faults = 0.0
        await sleep(10)  # what is owed is paid
        for cache in caches:
            for key in KEYS:
                for found in (cache.get_nowait(key), await cache.get(key)):
                    assert found is MISSING or found == [key, source.rows[key]]


async def in_shards(run: Run) -> None:
    """A key is loaded by one at a time, and memory holds no more than it may."""
    source, most = Source(run), run.dice.choice([8, 50])
    names = [f"u:{number}" for number in range(20)]
    cache: ShardedCache[str, Any] = ShardedCache(
        2,
        max_size=most,
        ttl=run.dice.choice([0.5, 60]),
        eviction=run.dice.choice(["s3fifo", "lru"]),
    )
    inside, turns, changing = Inside(), Counter[str](), Counter[str]()

    def check() -> None:
        assert cache.statistics().size <= most

    run.always(check)
    run.always(inside.check)

    async def get(key: str) -> list[Any]:
        if changing[key]:  # who comes after an invalidation loads anew
            return await cache.get_or_load(key, source.load)
        turn = turns[key]

        async def load(key: str) -> list[Any]:
            with inside((key, turn)):
                return await source.load(key)

        return await cache.get_or_load(key, load)

    @contextmanager
    def changed(keys: list[str]) -> Iterator[None]:
        changing.update(keys)
        try:
            yield
        finally:
            changing.subtract(keys)
            turns.update(keys)

    async def use() -> None:
        for _ in range(10):
            key = run.dice.choice(names)
            with move_on_after(run.dice.choice([0.01, FOREVER, FOREVER])):
                match run.dice.randrange(6):
                    case 0:
                        row = source.change([key])[key]
                        with changed([key]):
                            await cache.invalidate(key)
                        assert (await get(key))[1] >= row
                    case 1:
                        with changed(names):
                            await cache.invalidate_matching("u:*")
                    case _:
                        assert (await get(key))[0] == key
            await sleep(run.dice.choice([0.0, 0.05]))

    async with cache, create_task_group() as tasks:
        for _ in range(4):
            tasks.start_soon(use)
