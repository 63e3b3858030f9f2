"""Three processes on one shared tier, in virtual time, under many seeds and a bad network."""

from __future__ import annotations

from collections import Counter

import pytest
from anyio import create_task_group

from aiopatterns.backends.memory import MemoryBackend
from aiopatterns.cache.terms import MISSING, Life, Ttl
from aiopatterns.core.clock import monotonic, rng, sleep
from aiopatterns.core.codec import MSGPACK
from aiopatterns.testing import explore
from tests.cache.shaky import Shaky, shared, tier

KEYS = range(6)
TAG = {key: f"tag-{key % 2}" for key in KEYS}


class Source:
    """Rows that only grow, and how old an answer may be."""

    def __init__(self) -> None:
        self.rows: Counter[int] = Counter()
        self.floor: Counter[int] = Counter()
        self.loading: Counter[int] = Counter()

    async def load(self, key: int) -> list[int]:
        row = self.rows[key]
        await sleep(rng().uniform(0, 0.2))
        return [key, row]

    def change(self, keys) -> dict[int, int]:
        """Commit a change; return what every answer is at least as soon as it was invalidated."""
        for key in keys:
            self.rows[key] += 1
        return {key: self.rows[key] for key in keys}

    def invalidated(self, rows: dict[int, int]) -> None:
        for key, row in rows.items():
            self.floor[key] = max(self.floor[key], row)


async def change(source, far):
    """One change of one of all kinds, invalidated as it has to be."""
    roll, key = rng().random(), rng().choice(KEYS)
    if roll < 0.7:
        rows = source.change([key])
        await far.invalidate([key])
    elif roll < 0.9:
        rows = source.change([each for each in KEYS if TAG[each] == TAG[key]])
        await far.invalidate_tags([TAG[key]])
    else:
        rows = source.change(KEYS)
        await far.clear()
    return rows


@pytest.mark.promise("cache-shared-seeds")
def test_the_far_tier_never_answers_with_what_was_invalidated():
    """Whatever process asks: the answer is not older than the last invalidation that had ended."""

    async def scenario():
        server, source = MemoryBackend(), Source()
        backends = [Shaky(server, delay=0.02) for _ in range(3)]
        fars = [tier(each, codec=MSGPACK) for each in backends]

        async def reader(far):
            for _ in range(4):
                key = rng().choice(KEYS)
                floor = source.floor[key]
                fetched = (await far.read([key], [TAG[key]]))[key]
                if fetched.known:
                    assert fetched.value[1] >= floor
                    continue
                turn = await far.lead(key, fetched, tags=[TAG[key]])
                try:
                    if turn.answered:
                        assert turn.fetched.value[1] >= floor
                        continue
                    value = await source.load(key)
                    now = monotonic()
                    life = Life(now + rng().uniform(0.1, 2), now + 2)
                    await far.fill(key, turn.fetched.seen, value, life, tags=[TAG[key]])
                finally:
                    far.finish(turn)

        async def writer(far):
            for _ in range(3):
                await sleep(rng().uniform(0, 0.2))
                rows = await change(source, far)
                assert far.up
                source.invalidated(rows)

        async with create_task_group() as tasks:
            for far in fars:
                await tasks.start(far.run)
            async with create_task_group() as work:
                for far in fars:
                    work.start_soon(reader, far)
                    work.start_soon(reader, far)
                    work.start_soon(writer, far)
            tasks.cancel_scope.cancel()

    explore(scenario, range(80))


@pytest.mark.promise("cache-shared-seeds")
def test_caches_agree_in_the_end_over_a_bad_network():
    """Never an error, never in one process what it has invalidated, and all agree at last."""

    async def scenario():
        server, source = MemoryBackend(), Source()
        backends = [Shaky(server, delay=0.02, faults=0.05) for _ in range(3)]
        ttl = Ttl(5, stale=rng().choice([0, 5]), jitter=0.1)
        caches = [shared(each, ttl=ttl) for each in backends]

        async def reader(cache):
            for _ in range(5):
                key = rng().choice(KEYS)
                if rng().random() < 0.7:
                    found = {key: await cache.get_or_load(key, source.load, tags=[TAG[key]])}
                else:
                    found = await cache.get_or_load_many(KEYS, load_many)
                for each, value in found.items():
                    assert value[0] == each
                await sleep(rng().uniform(0, 0.3))

        async def load_many(keys):
            return {key: await source.load(key) for key in keys}

        async def writer(cache):
            for _ in range(3):
                await sleep(rng().uniform(0, 1))
                key = rng().choice(KEYS)
                rows = source.change([key])
                await cache.invalidate(key)
                value = await cache.get_or_load(key, source.load, tags=[TAG[key]])
                assert value[1] >= rows[key]

        async with create_task_group() as closing:
            for cache in caches:
                await closing.start(opened, cache)
            async with create_task_group() as work:
                for cache in caches:
                    work.start_soon(reader, cache)
                    work.start_soon(writer, cache)
            for backend in backends:
                backend.faults = 0.0
            # A lost connection would tell of a gap; this one loses calls, not messages.
            await sleep(10)
            for cache in caches:
                assert cache._far.up
                assert not cache._far._outbox.owed
                for key in KEYS:
                    near, far = cache.get_nowait(key), await cache.get(key)
                    assert near is MISSING or near[1] == source.rows[key]
                    assert far is MISSING or far[1] == source.rows[key]
            closing.cancel_scope.cancel()

    explore(scenario, range(80))


async def opened(cache, *, task_status):
    async with cache:
        task_status.started()
        await sleep(10_000)


@pytest.mark.promise("cache-shared-seeds")
def test_a_cold_key_is_loaded_once_in_the_fleet():
    async def scenario():
        server, loads = MemoryBackend(), Counter[str]()
        backends = [Shaky(server, delay=0.01) for _ in range(3)]
        caches = [shared(each) for each in backends]

        async def load(key):
            loads[key] += 1
            await sleep(rng().uniform(0, 0.5))
            return key

        async def caller(cache, key):
            assert await cache.get_or_load(key, load) == key

        async with create_task_group() as closing:
            for cache in caches:
                await closing.start(opened, cache)
            async with create_task_group() as work:
                for cache in caches:
                    for key in ("a", "a", "b"):
                        work.start_soon(caller, cache, key)
            closing.cancel_scope.cancel()
        assert loads == {"a": 1, "b": 1}

    explore(scenario, range(200))
