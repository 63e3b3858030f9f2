"""The five races between a load, a change of the source and its invalidation, on a real server.

=====  ==========================================  ================================================
race   what could go wrong                         what is looked at here
=====  ==========================================  ================================================
A      an old value is filled in after the key     nothing old in the server, at three timings, and
       was invalidated                             fills are still accepted
B      the same in the memory of a process         nothing old near, in any of three processes
C      a message is lost                           noticed by its number, by a gap, or in the end
D      an own echo is taken for news               own values stay; foreign ones go
E      told, but not written                       a message is heard only of what is written
=====  ==========================================  ================================================
"""

from __future__ import annotations

from contextlib import AsyncExitStack, asynccontextmanager
from random import Random
from typing import TYPE_CHECKING, Any

import pytest
from anyio import create_task_group, fail_after

from aiopatterns.backends import open_backend
from aiopatterns.cache import gate, invalidation, keeper
from aiopatterns.cache.envelope import is_tombstone
from aiopatterns.cache.invalidation import KEYS as OF_KEYS
from aiopatterns.cache.invalidation import Item
from aiopatterns.cache.terms import MISSING, Life
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.testing import FaultProxy
from aiopatterns.testing.clusters import RedisCluster
from tests.cache.shaky import shared, tier

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = pytest.mark.real

KEYS = 1_500
READERS = 3
LONGEST_LOAD = 0.004
MIDDLE = 0.004
# Readers and the writer of a key begin within so many seconds; keys at the same time, few enough
# that the loop itself is not what decides.
TIMINGS = [(0.0, 50), (MIDDLE, 10), (0.06, 50)]


async def eventually(condition, *, within=5.0):
    with fail_after(within):
        while not condition():
            await sleep(0.005)


@pytest.fixture
def patient(monkeypatch):
    """A loop that stalls, as on a busy machine, is no outage: these tests are about races."""
    monkeypatch.setattr(gate, "TIMEOUT", 10.0)


@asynccontextmanager
async def processes(url) -> AsyncIterator[list[Any]]:
    """Several processes, as far as the server can tell."""
    fars = [tier(open_backend(url), name="races") for _ in range(READERS)]
    async with create_task_group() as tasks:
        for far in fars:
            await tasks.start(far.run)
        yield fars
        tasks.cancel_scope.cancel()


@asynccontextmanager
async def caches_at(*urls) -> AsyncIterator[list[Any]]:
    async with AsyncExitStack() as stack:
        caches = [shared(open_backend(url)) for url in urls]
        yield [await stack.enter_async_context(each) for each in caches]


@pytest.mark.promise("cache-no-stale-fill")
@pytest.mark.parametrize(("spread", "at_once"), TIMINGS)
async def test_race_a_nothing_old_is_filled_in(redis_url, patient, spread, at_once):
    keys = KEYS if spread == MIDDLE else KEYS // 2  # of the others half on each loop
    dice, rows, results = Random(7), dict.fromkeys(range(keys), "old"), []

    async def read(far, key, start, takes):
        await sleep(start)
        fetched = (await far.read([key]))[key]
        if not fetched.known:
            row = rows[key]
            await sleep(takes)
            life = Life(monotonic() + 60, monotonic() + 60)
            results.append(await far.fill(key, fetched.seen, row, life))

    async def write(far, key, start):
        await sleep(start)
        rows[key] = "new"
        await far.invalidate([key])

    async with processes(redis_url) as fars:
        for first in range(0, keys, at_once):
            async with create_task_group() as tasks:
                for key in range(first, first + at_once):
                    for far in fars:
                        start, takes = dice.uniform(0, spread), dice.uniform(0, LONGEST_LOAD)
                        tasks.start_soon(read, far, key, start, takes)
                    tasks.start_soon(write, fars[key % READERS], key, dice.uniform(0, spread))
        found = await fars[1].read(range(keys))
        assert all(far.up for far in fars)
    stale = [key for key, each in found.items() if each.known and each.value != "new"]
    assert stale == []
    accepted = results.count("stored")
    print(
        f"spread {spread}: {accepted} accepted, {len(results) - accepted} not, {len(stale)} stale"
    )
    if spread == MIDDLE:
        assert accepted >= 1_000


@pytest.mark.promise("cache-no-stale-fill")
@pytest.mark.parametrize(("spread", "at_once"), TIMINGS)
async def test_race_b_nothing_old_stays_near(redis_url, patient, spread, at_once):
    keys = KEYS // 10
    dice, rows = Random(8), dict.fromkeys(range(keys), "old")

    async def load(key):
        row = rows[key]
        await sleep(dice.uniform(0, LONGEST_LOAD))
        return row

    async def read(cache, key, start):
        await sleep(start)
        await cache.get_or_load(key, load)

    async def write(cache, key, start):
        await sleep(start)
        rows[key] = "new"
        await cache.invalidate(key)
        # Who asks here from now on gets what was loaded after the change.
        assert await cache.get_or_load(key, load) == "new"

    async with caches_at(*[redis_url] * READERS) as caches:
        for first in range(0, keys, at_once):
            async with create_task_group() as tasks:
                for key in range(first, first + at_once):
                    for cache in caches:
                        tasks.start_soon(read, cache, key, dice.uniform(0, spread))
                    writer = caches[key % READERS]
                    tasks.start_soon(write, writer, key, dice.uniform(0, spread))
        await sleep(0.1)  # what is under way arrives
        held = [cache.get_nowait(key) for cache in caches for key in range(keys)]
        asked = {await cache.get_or_load(key, load) for cache in caches for key in range(keys)}
    assert set(held) <= {"new", MISSING}
    assert asked == {"new"}


@pytest.mark.promise("cache-lost-messages")
@pytest.mark.parametrize("another_follows", [True, False])
async def test_race_c_a_message_that_is_lost_without_a_sign_is_missed(
    redis_url, monkeypatch, another_follows
):
    monkeypatch.setattr(keeper, "_LOOK_EVERY", 0.3)
    monkeypatch.setattr(invalidation, "PATIENCE", 0.3)
    async with caches_at(redis_url, redis_url) as (here, there):
        await here.invalidate("first")  # from now on they know each other
        await sleep(0.05)
        await there.get_or_load("k", lambda _: constant("old"))
        outbox = here._far._outbox
        lost = outbox._change(Item(OF_KEYS, "k"))
        async with open_backend(redis_url) as backend:
            await backend.kv.change_many([lost._replace(notify=None)])
        if another_follows:
            await here.invalidate("another")
        assert there.get_nowait("k") == "old"
        began = monotonic()
        await eventually(lambda: there.get_nowait("k") is MISSING)
        assert monotonic() - began < 4.5


@pytest.mark.promise("cache-lost-messages")
async def test_race_c_a_lost_connection_clears_what_is_near(redis_url):
    async with (
        FaultProxy(redis_url) as proxy,
        caches_at(redis_url, proxy.url) as (here, there),
    ):
        await there.get_or_load("k", lambda _: constant("old"))
        proxy.refuse()
        proxy.cut()
        await here.invalidate("k")
        assert await here.get_or_load("k", lambda _: constant("new")) == "new"
        proxy.accept()
        await eventually(lambda: there.get_nowait("k") is MISSING)
        await eventually(lambda: there._far.up)
        assert await there.get_or_load("k", lambda _: constant("newest")) == "new"


@pytest.mark.promise("cache-lost-messages")
async def test_race_c_an_invalidation_whose_answer_is_lost_is_told_again(redis_url):
    async with (
        FaultProxy(redis_url) as proxy,
        caches_at(redis_url, proxy.url) as (here, there),
    ):
        await here.get_or_load("k", lambda _: constant("old"))
        fault = proxy.drop_requests(1, matching=b"EVALSHA")
        await there.invalidate("k")
        await fault.wait()
        await eventually(lambda: here.get_nowait("k") is MISSING)
        assert await there.get_or_load("k", lambda _: constant("new")) == "new"


async def test_race_d_an_own_echo_is_no_news(redis_url):
    async with caches_at(redis_url, redis_url) as (here, there):
        for number in range(50):
            await here.set("k", number)
            assert here.get_nowait("k") == number
        await eventually(lambda: there.get_nowait("k") is MISSING)
        assert await there.get("k") == 49
        assert here.get_nowait("k") == 49
        # A foreign one right behind an own one is heard.
        await here.set("k", "here")
        await there.set("k", "there")
        await eventually(lambda: here.get_nowait("k") is MISSING)
        assert await here.get("k") == await there.get("k") == "there"


async def test_race_e_what_is_told_is_written(redis_url):
    async with (
        processes(redis_url) as fars,
        open_backend(redis_url) as backend,
        backend.pubsub.subscribe("cache:races") as notices,
    ):
        for key in range(100):
            await fars[0].invalidate([key])
            with fail_after(5):
                await anext(notices)
            # In the same step: whoever hears of it finds it.
            raw = await backend.kv.get(f"cache:races:k:i{key}")
            assert raw is not None
            assert is_tombstone(raw)


@pytest.mark.stress
async def test_keys_on_several_servers_of_a_cluster():
    """Versions, values, turns and messages live on different nodes, and nothing is lost for it."""
    with RedisCluster() as cluster:
        async with caches_at(cluster.url, cluster.url) as (here, there):
            for cache in (here, there):
                for key in range(100):
                    assert await cache.get_or_load(key, constant, tags=["t"]) == key
            assert there.statistics().loads == 0
            await here.invalidate(*range(50))
            await eventually(
                lambda: sum(there.get_nowait(key) is MISSING for key in range(100)) == 50
            )
            await there.invalidate_tags("t")
            assert await here.get(99, None) in (99, None)
            await eventually(lambda: here.get_nowait(99) is MISSING)
            assert await here.get(99) is MISSING
            found = await here.get_or_load_many(
                range(100), lambda keys: constant({k: k for k in keys})
            )
            assert len(found) == 100
            await there.get_or_load_many(range(100), constant)
            # Messages from several nodes overtake each other; that is no loss.
            await sleep(3)
            assert all(there.get_nowait(key) == key for key in range(100))


async def constant(value):
    return value
