"""Patterns: what fits is invalid everywhere at once, and nothing else; on memory and on Redis."""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack, asynccontextmanager
from fnmatch import fnmatchcase
from typing import Any

import pytest
from anyio import create_task_group, fail_after

from aiopatterns.backends import open_backend
from aiopatterns.backends.memory import MemoryBackend
from aiopatterns.cache import Cache, gate, patterns
from aiopatterns.cache.envelope import is_tombstone
from aiopatterns.cache.farnames import GRACE
from aiopatterns.cache.pieces import PIECE
from aiopatterns.cache.rules import Rules
from aiopatterns.cache.terms import MISSING
from aiopatterns.core.clock import monotonic, rng, sleep
from aiopatterns.core.codec import MSGPACK
from aiopatterns.core.errors import BackendUnavailableError
from aiopatterns.testing import Trial, cancel_everywhere, explore, simulate
from aiopatterns.testing.clusters import RedisCluster
from tests.cache.shaky import Deaf, Shaky, shared

KV = {"get_many", "change_many", "scan"}
RECORD = "cache:near:v:"
pytestmark = pytest.mark.leaves("ap:kv:cache:*")


@pytest.fixture(autouse=True)
def patient(monkeypatch):
    """A loop that stalls, as on a busy machine, is no outage."""
    monkeypatch.setattr(gate, "TIMEOUT", 5.0)


@asynccontextmanager
async def caches(backends, count=2, **terms):
    async with AsyncExitStack() as stack:
        made: list[Any] = [shared(backends(), **terms) for _ in range(count)]
        yield [await stack.enter_async_context(each) for each in made]


async def eventually(condition):
    with fail_after(5):
        while not condition():
            await sleep(0.005)


async def load(key):
    return f"{key}#1"


async def values_left(kv) -> list[str]:
    stored = await kv.get_many((await kv.scan("cache:near:k:", limit=10_000)).keys)
    return sorted(name for name, raw in stored.items() if not is_tombstone(raw))


async def rules_of(cache) -> Rules:
    raw = await cache._far._backend.kv.get(RECORD)
    return Rules.opened(raw)


async def what_fits_goes_and_nothing_else(backends):
    async with caches(backends) as (here, there):
        keys = ["user:1", "user:2", "org:1", 17, b"user:3", "u" * 600, "x" * 600]
        for key in keys:
            await here.get_or_load(key, load)
            await there.get_or_load(key, load)
        await there.invalidate_matching("user:*")
        assert [await there.get(key, None) for key in keys[:2]] == [None] * 2
        await eventually(lambda: here.get_nowait("user:1") is MISSING)
        for cache in (here, there):
            assert [await cache.get(key, None) for key in keys[:2]] == [None] * 2
            left = [await cache.get(key, None) for key in keys[2:5]]
            assert left == [f"{key}#1" for key in keys[2:5]]
        # What is left in the server is what counts; a name that does not tell its key went too.
        kv = here._far._backend.kv
        assert await values_left(kv) == ["cache:near:k:b" + b"user:3".hex(), "cache:near:k:i17",
                                 "cache:near:k:sorg:1"]  # fmt: skip
        here.stock.clear()
        assert await here.get("org:1") == "org:1#1"
        assert await here.get_or_load("user:1", load) == "user:1#1"
        await here.invalidate_matching("1?")
        await here.invalidate_matching("b'*")
        there.stock.clear()
        assert [await there.get(key, None) for key in (17, b"user:3")] == [None, None]
        assert await there.get("user:1") == "user:1#1"


async def a_load_that_was_under_way_is_nothing(backends):
    """Neither one that the server could see, nor one that it could not."""
    async with caches(backends) as (here, there):
        go = asyncio.Event()

        async def old(key):
            await go.wait()
            return "old"

        async def old_many(keys):
            await go.wait()
            return dict.fromkeys(keys, "old")

        await here.get_or_load("user:stale", load)  # of which nobody is told
        loads = [
            asyncio.create_task(there.get_or_load("user:1", old)),
            asyncio.create_task(there.get_or_load("user:stale", old, fresh=True)),
            asyncio.create_task(there.get_or_load("org:1", old)),
            asyncio.create_task(there.get_or_load_many(["user:2", "org:2"], old_many)),
        ]
        await eventually(lambda: len(there._loads._table) == 5)
        await sleep(0.05)
        there._far._keeper._news._local = Deaf()  # no message comes
        await here.invalidate_matching("user:*")
        go.set()
        await asyncio.gather(*loads)
        for cache in (here, there):
            cache.stock.clear()
            for key in ("user:1", "user:2", "user:stale"):
                assert await cache.get(key, None) is None
            assert [await cache.get(f"org:{number}") for number in (1, 2)] == ["old", "old"]
        there.stock.clear()
        assert await there.get_or_load("user:1", load) == "user:1#1"


BODIES = [what_fits_goes_and_nothing_else, a_load_that_was_under_way_is_nothing]


@pytest.mark.promise("cache-no-stale-fill")
@pytest.mark.parametrize("body", BODIES)
async def test_in_memory(body):
    server = MemoryBackend()
    await body(lambda: Shaky(server))


@pytest.mark.real
@pytest.mark.promise("cache-no-stale-fill")
@pytest.mark.parametrize("body", BODIES)
async def test_on_redis(body, redis_url):
    await body(lambda: open_backend(redis_url))


def test_rules_are_dropped_when_no_old_load_can_be_stored_any_more():
    async def scenario():
        server = MemoryBackend()
        async with caches(lambda: Shaky(server), ttl=None) as (here, there):
            await here.get_or_load("b", load)
            seen = (await there._far.read(["a", "b"]))["a"].seen
            await here.invalidate_matching("a*")
            await sleep(30)
            life = there.stock.ttl.life("old", 0.0)
            assert await there._far.fill("a", seen, "old", life) == "stored"
            await here.invalidate_matching("c*")
            assert len((await rules_of(here)).rules) == 2
            await sleep(GRACE - 30 + 1)
            assert not (await there._far.read(["a"]))["a"].known
            await there.invalidate_matching("d*")
            assert [each.pattern for each in (await rules_of(here)).rules] == ["c*", "d*"]
            assert await values_left(server.kv) == ["cache:near:k:sb"], (
                "also what came later is gone"
            )
            await sleep(GRACE + 1)
            await here.invalidate_matching("e")
            assert [each.pattern for each in (await rules_of(here)).rules] == ["e"]
            here.stock.clear()
            assert await here.get("b") == "b#1"

    simulate(scenario)


def test_other_codecs_and_other_bytes():
    """What others store under an old version goes as well, so that it cannot come back."""

    async def scenario():
        server = MemoryBackend()
        async with (
            caches(lambda: Shaky(server), 1) as (here,),
            caches(lambda: Shaky(server), codec=MSGPACK) as (there, third),
        ):
            await there.set("a1", 1)
            await here.set("a3", 3)
            await server.kv.set("cache:near:k:sa2", b"V\x01 something")
            await third.invalidate("a3")
            stood = await server.kv.get("cache:near:k:sa3")
            await here.invalidate_matching("a*")
            assert await values_left(server.kv) == []
            assert await server.kv.get("cache:near:k:sa3") == stood, "a tombstone stays"

    simulate(scenario)


def test_too_many_patterns_clear():
    async def scenario():
        server = MemoryBackend()
        async with caches(lambda: Shaky(server)) as (here, there):
            await here.get_or_load("k", load)
            told = []
            there.on_invalidate(lambda *keys: told.append(keys))
            count = 0
            while (await here._far.read(["k"]))["k"].known:
                count += 1
                await here.invalidate_matching(f"pattern {count}")
                assert count < 1_000
            assert count > 50
            assert (await rules_of(here)).rules == ()
            await eventually(lambda: len(told) == count)

    simulate(scenario)


@pytest.mark.parametrize("how", ["hangs", "refuses", "away"])
def test_a_server_that_cannot_be_told_is_told_that_all_is_invalid(how):
    async def scenario():
        server, shaky = MemoryBackend(), []

        def way():
            shaky.append(Shaky(server))
            return shaky[-1]

        async with caches(way) as (here, there):
            for key in ("user:1", "org:1"):
                await here.get_or_load(key, load)
                await there.get_or_load(key, load)
            setattr(shaky[0], "refuses" if how == "refuses" else "hangs", True)
            if how == "away":
                await here.get("unknown")
            await here.invalidate_matching("user:*")
            assert here.get_nowait("user:1") is MISSING
            assert here.get_nowait("org:1") == "org:1#1"
            assert await here.get("user:1") is MISSING
            assert here._far._outbox.owed.concerns("user:2", ())
            assert not here._far._outbox.owed.concerns("org:2", ())
            shaky[0].hangs = shaky[0].refuses = False
            await eventually(lambda: there.get_nowait("org:1") is MISSING)
            assert len(here._far._outbox.owed) == 0
            assert await there.get("user:1") is MISSING

    simulate(scenario)


def test_many_at_once_and_the_last_way_out(monkeypatch):
    """Each writes over what another has written; who cannot get a word in clears."""

    async def scenario():
        server = MemoryBackend()
        async with caches(lambda: Shaky(server, delay=0.001), 3) as fleet:
            for key in "abcdefgh":
                await fleet[0].get_or_load(key, load)
            async with create_task_group() as tasks:
                for number, key in enumerate("abcdef"):
                    tasks.start_soon(fleet[number % 3].invalidate_matching, f"{key}*")
            for cache in fleet:
                cache.stock.clear()
            found = [await fleet[1].get(key, None) for key in "abcdefgh"]
            assert found[:6] == [None] * 6
            assert sum(len(each._far._outbox.owed) for each in fleet) == 0

    for attempts in (1, 10):
        monkeypatch.setattr(patterns, "_ATTEMPTS", attempts)
        for seed in range(30):
            simulate(scenario, seed=seed)


@pytest.mark.parametrize("at", range(8))
def test_a_server_that_is_lost_at_any_call(at, monkeypatch):
    """Told or not: what fits is invalid in the end, and what is left is dropped by the next."""
    monkeypatch.setattr(patterns, "_PAGE", 2)

    async def scenario():
        server, ways = MemoryBackend(), list[Any]()

        def way():
            ways.append(Shaky(server))
            return ways[-1]

        async with caches(way, 2, ttl=None) as (here, there):
            await here.invalidate_matching("other")
            await sleep(GRACE + 1)
            for key in ("b1", "b2", "c1", "c2"):
                await here.set(key, key)
            there.stock.clear()
            ways[0].calls.clear()

            def asked():
                return sum(each in KV for each in ways[0].calls)

            async def lost():
                if ways[0].calls[-1] in KV and asked() == at + 1:
                    raise BackendUnavailableError("gone")

            ways[0].way = lost
            await here.invalidate_matching("b*")
            assert asked() == at + 1
            assert here.get_nowait("b1") is MISSING
            assert len(here._far._outbox.owed) == (at < 2)
            del ways[0].way
            await sleep(3)
            assert here._far.up
            assert not here._far._outbox.owed
            for cache in (here, there):
                assert [await cache.get(key, None) for key in ("b1", "b2")] == [None, None]
            assert await there.get("c1", None) == (None if at < 2 else "c1")
            await sleep(GRACE + 1)
            await there.invalidate_matching("b*")
            assert len((await rules_of(here)).rules) == 1
            assert "cache:near:k:sb1" not in await values_left(server.kv)

    simulate(scenario)


def test_a_lost_record():
    async def scenario():
        server, ways = MemoryBackend(), list[Any]()

        def way():
            ways.append(Shaky(server))
            return ways[-1]

        async with caches(way, 1) as (here,):
            await here.get_or_load("a", load)
            await server.kv.delete(RECORD)
            await here.invalidate_matching("z")
            here.stock.clear()
            assert await here.get("a") is MISSING
            await server.kv.delete(RECORD)
            await here._far._patterns._drop(())

            async def lose():
                await server.kv.delete(RECORD)

            ways[0].way = lose
            seen = (await here._far.read(["a"]))["a"].seen
            assert await here._far.fill("a", seen, 1, here.stock.ttl.life(1, 0.0)) == "skipped"

    simulate(scenario)


@pytest.mark.promise("cache-no-stale-fill")
def test_a_rule_of_a_later_record_is_not_dropped_for_its_number():
    """Somebody clears, so that rules are counted anew, while a look is under way."""

    async def scenario():
        server, ways = MemoryBackend(), list[Any]()

        def way():
            ways.append(Shaky(server))
            return ways[-1]

        async with caches(way) as (here, there):
            await here.invalidate_matching("a*")
            await sleep(GRACE + 1)
            seen = None

            async def meanwhile():
                nonlocal seen
                if ways[0].calls[-1] == "scan" and seen is None:
                    await there.clear()
                    seen = (await there._far.read(["b"]))["b"].seen
                    await there.invalidate_matching("b*")

            ways[0].way = meanwhile
            await here.invalidate_matching("c*")
            life = there.stock.ttl.life("old", monotonic())
            assert await there._far.fill("b", seen, "old", life) == "stored"
            assert not (await there._far.read(["b"]))["b"].known

    simulate(scenario)


@pytest.mark.promise("cache-no-stale-fill")
def test_a_rule_that_is_dropped_while_many_keys_are_read():
    """Who has read a value in one piece has the rule about it from the same or an earlier one."""

    async def scenario():
        server, ways = MemoryBackend(), list[Any]()

        def way():
            ways.append(Shaky(server))
            return ways[-1]

        async with caches(way, ttl=None) as (here, there):
            seen = (await there._far.read(["a"]))["a"].seen
            await here.invalidate_matching("a*")
            life = there.stock.ttl.life("old", monotonic())
            assert await there._far.fill("a", seen, "old", life) == "stored"
            await sleep(GRACE + 1)
            ways[1].calls.clear()

            async def meanwhile():
                if ways[1].calls.count("get_many") == 2:
                    del ways[1].way
                    await here.invalidate_matching("z")
                    assert [each.pattern for each in (await rules_of(here)).rules] == ["z"]

            ways[1].way = meanwhile
            found = await there._far.read(["a", *range(2 * PIECE)])
            assert ways[1].calls.count("get_many") >= 3
            assert not found["a"].known

    simulate(scenario)


def late(way):
    """Let writes get lost on their way; return them, for the server to get later."""
    lost = []

    async def change_many(changes):
        lost.extend(changes)
        raise BackendUnavailableError("no answer")

    way.kv.change_many = change_many
    return lost


@pytest.mark.promise("cache-no-stale-fill")
def test_what_a_look_takes_away_makes_no_room_for_an_old_fill():
    async def scenario():
        server, ways = MemoryBackend(), list[Any]()

        def way():
            ways.append(Shaky(server))
            return ways[-1]

        async with caches(way, 4) as (here, slow, reader, writer):
            reader._far._keeper._news._local = Deaf()
            await slow.get("k")  # the record is made
            lost = late(ways[1])
            await slow.set("k", "set before the rule")
            seen = None

            async def meanwhile():
                nonlocal seen
                if ways[0].calls[-1] == "scan" and seen is None:
                    seen = (await reader._far.read(["k"]))["k"].seen
                    await writer.invalidate("k")
                    assert await server.kv.change_many(lost) == [True]

            ways[0].way = meanwhile
            await here.invalidate_matching("*")
            life = reader.stock.ttl.life("old", monotonic())
            assert await reader._far.fill("k", seen, "old", life) == "refused"

    simulate(scenario)


@pytest.mark.promise("cache-no-stale-fill")
def test_no_order_of_things_leaves_an_old_value_behind():
    """Who asks after an invalidation gets what was loaded after it, here; soon everywhere."""

    async def scenario():
        server = MemoryBackend()
        source: dict[str, int] = dict.fromkeys(["a1", "a2", "b1"], 0)
        least = dict(source)

        async def one(key):
            value = source[key]
            await sleep(rng().random() / 20)
            return value

        async def many(keys):
            return {key: await one(key) for key in keys}

        async def reader(cache):
            for _ in range(8):
                key = rng().choice(list(source))
                floor = least[key]
                if rng().random() < 0.5:
                    found = await cache.get_or_load(key, one, fresh=rng().random() < 0.2)
                else:
                    found = (await cache.get_or_load_many([key], many))[key]
                if cache is fleet[0]:
                    assert found >= floor
                await sleep(rng().random() / 20)

        async def writer(cache):
            for _ in range(4):
                pattern = rng().choice(["a*", "a1", "?1", "b*"])
                keys = [k for k in source if fnmatchcase(k, pattern)]
                for key in keys:
                    source[key] += 1
                now = {key: source[key] for key in keys}
                await cache.invalidate_matching(pattern)
                least.update({key: max(least[key], now[key]) for key in keys})
                await sleep(rng().random() / 20)

        async with caches(lambda: Shaky(server, delay=0.004), 2) as fleet:
            async with create_task_group() as tasks:
                for cache in (*fleet, *fleet):
                    tasks.start_soon(reader, cache)
                tasks.start_soon(writer, fleet[0])
            await sleep(0.1)
            for cache in fleet:
                for key, value in source.items():
                    assert await cache.get_or_load(key, one) == value

    explore(scenario, range(60))


def test_cancelled_anywhere_it_is_told():
    def scenario() -> Trial:
        server, ended = MemoryBackend(), []

        async def work():
            async with caches(lambda: Shaky(server, delay=0.01), 1) as (here,):
                ended.append(here)
                await here.get_or_load("user:1", load)
                await here.invalidate_matching("user:*")
                ended.append("told")

        async def check():
            if len(ended) == 2 or (ended and ended[0].statistics().loads and ended[0]._far):
                owed = ended[0]._far._outbox.owed
                assert owed.due == len(owed)

        return Trial(work(), check)

    cancel_everywhere(scenario, minimum=8)


class Text(str):
    """Of a type of one's own."""

    __slots__ = ()


async def test_a_pattern_may_be_of_a_type_of_its_own():
    async with caches(lambda: Shaky(MemoryBackend()), 1) as (here,):
        await here.get_or_load("a", load)
        await here.get_or_load("b", load)
        await here.invalidate_matching(Text("a*"))
        here.stock.clear()
        assert [await here.get(key, None) for key in "ab"] == [None, "b#1"]


def test_names_that_are_none_of_ours_are_looked_at_and_no_harm():
    async def scenario():
        server = MemoryBackend()
        async with caches(lambda: Shaky(server), 1) as (here,):
            for name in ("", "bxy", "?", "s\U0001f984*[a]"):
                await server.kv.set(f"cache:near:k:{name}", b"1")
            await here.set("\U0001f984*[b]", 1)
            await here.invalidate_matching("\U0001f984[*][[]a]")
            assert await values_left(server.kv) == ["cache:near:k:s\U0001f984*[b]"]

    simulate(scenario)


async def test_a_look_at_many_keys_lets_others_run():
    server, turns = MemoryBackend(), 0

    async def others():
        nonlocal turns
        while True:
            turns += 1
            await sleep(0)

    async with server, Cache[str, int]("near", ttl=60, backend=server) as here:
        await server.kv.set_many({f"cache:near:k:s{n}": b"1" for n in range(5_000)}, ttl=60)
        async with create_task_group() as tasks:
            tasks.start_soon(others)
            await here.invalidate_matching("none")
            tasks.cancel_scope.cancel()
        assert turns >= 5


@pytest.mark.promise("cache-bad-input")
async def test_bad_patterns_are_refused():
    async with caches(lambda: Shaky(MemoryBackend()), 1) as (here,):
        with pytest.raises(ValueError, match="UTF-8 can hold"):
            await here.invalidate_matching("\ud800*")
        assert not here._far._outbox.owed


@pytest.mark.real
@pytest.mark.stress
async def test_on_all_servers_of_a_cluster():
    with RedisCluster() as cluster:
        async with caches(lambda: open_backend(cluster.url)) as (here, there):
            for number in range(60):
                await here.get_or_load(f"user:{number}", load)
                await here.get_or_load(f"org:{number}", load)
            await there.invalidate_matching("user:*")
            here.stock.clear()
            assert [await here.get(f"user:{n}", None) for n in range(60)] == [None] * 60
            assert [await here.get(f"org:{n}") for n in range(60)] == [
                f"org:{n}#1" for n in range(60)
            ]
            assert len((await rules_of(here)).rules) == 1
