"""What a batch costs on a real Redis, counted by the server itself."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest

from aiopatterns.backends import open_backend
from aiopatterns.backends.redis.wire import Wire
from aiopatterns.cache import Cache

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = [pytest.mark.real, pytest.mark.promise("cache-round-trips")]


def commands(wire: Wire) -> dict[str, int]:
    """How often the server was asked for what, since it started."""
    found = {}
    for line in str(wire.call("INFO", "commandstats")).splitlines():
        name, _, figures = line.partition(":")
        if name.startswith("cmdstat_"):
            found[name.removeprefix("cmdstat_")] = int(figures.split(",")[0].removeprefix("calls="))
    return found


@asynccontextmanager
async def counted(backend) -> AsyncIterator[list[str]]:
    """The calls to the store meanwhile: each is one round trip."""
    calls: list[str] = []
    kv = backend.kv

    class Spy:
        def __getattr__(self, name):
            async def call(*args, **options):
                calls.append(name)
                return await getattr(kv, name)(*args, **options)

            return call

    backend.kv = Spy()
    try:
        yield calls
    finally:
        backend.kv = kv


async def test_a_hundred_keys_of_which_thirty_are_missing(redis_url):
    asked = []

    async def many(keys):
        asked.append(list(keys))
        return {key: f"value {key}" for key in keys}

    async with (
        open_backend(redis_url) as backend,
        Cache[str, str]("trips", ttl=60, backend=backend) as first,
        Cache[str, str]("trips", ttl=60, backend=backend) as second,
    ):
        there = [f"k{number}" for number in range(70)]
        await first.get_or_load_many(there, many)
        asked.clear()
        keys = [f"k{number}" for number in range(100)]
        async with counted(backend) as calls:
            found = await second.get_or_load_many(keys, many)
        assert list(found) == keys
        assert calls == ["get_many", "change_many"], "one MGET, one pipeline"
        assert asked == [keys[70:]], "one call of the loader"
        async with counted(backend) as calls:
            assert await second.get_or_load_many(keys, many) == found
        assert calls == [], "all are near now"


async def test_the_server_sees_one_mget(redis_url):
    async def many(keys):
        return dict.fromkeys(keys, "value")

    with Wire(redis_url) as wire:
        async with Cache[str, str]("trips", ttl=60, backend=redis_url) as cache:
            await cache.get_or_load_many(["warm"], many)
            before = commands(wire)
            await cache.get_or_load_many([f"k{number}" for number in range(100)], many)
            after = commands(wire)
    grown = {name: count - before.get(name, 0) for name, count in after.items()}
    assert grown["mget"] == 1
    assert grown["evalsha"] == 100
