"""A sharded cache: one home for each key, verbs over several shards, bounds, maintenance."""

from __future__ import annotations

from collections import Counter

import pytest

from aiopatterns.backends import open_backend
from aiopatterns.cache import keeper
from aiopatterns.cache.sharded import ShardedCache
from aiopatterns.cache.terms import MISSING, CacheStatistics, Ttl
from aiopatterns.core import clock
from aiopatterns.core.errors import ClosedError
from aiopatterns.testing import Trial, cancel_everywhere, simulate


def made(shards=4, **options) -> ShardedCache[object, object]:
    return ShardedCache(shards, **{"ttl": 60.0, **options})


async def upper(key):
    return str(key).upper()


async def many(keys):
    return {key: str(key).upper() for key in keys}


def memories(count: int) -> list:
    return [open_backend("memory://") for _ in range(count)]


# ------------------------------------------------------------------------------ home of a key


@pytest.mark.promise("cache-one-shard")
def test_a_key_is_at_home_in_one_shard_and_the_shards_share_evenly():
    cache = made(8)
    homes = Counter(cache.shard(f"key:{n}").name for n in range(8_000))
    assert set(homes) == {f"sharded/{n}" for n in range(8)}
    assert all(800 < n < 1_200 for n in homes.values())
    assert all(cache.shard(n) is cache.shard(n) for n in range(100))


@pytest.mark.promise("cache-one-shard")
def test_over_backends_homes_are_the_same_in_every_process():
    cache = made({"a": "memory://", "b": "memory://", "c": "memory://"})
    found = [cache.shard(key).name[-1] for key in ("user:1", "user:2", b"user:1", 1, 2, 3)]
    assert found == ["c", "a", "c", "a", "a", "b"]


@pytest.mark.promise("cache-one-shard")
@pytest.mark.parametrize("keys", [range(4_000), range(0, 64 * 4_000, 64)])
def test_a_shard_that_comes_moves_only_the_keys_that_it_gets(keys):
    before, after = made(4), made(5)
    moved = 0
    for key in keys:
        old, new = before.shard(key).name, after.shard(key).name
        if old != new:
            assert new == "sharded/4"
            moved += 1
    assert 0.15 < moved / len(keys) < 0.25


async def test_only_texts_bytes_and_numbers_have_a_home_over_backends():
    cache = made(memories(2))
    with pytest.raises(TypeError, match="must be a string, bytes or a whole number"):
        cache.get_nowait(("a", 1))
    assert made(2).get_nowait(("a", 1)) is MISSING


# --------------------------------------------------------------------------------------- verbs


@pytest.mark.parametrize("shards", ["in this process", "over backends", "one"])
async def test_the_verbs_are_those_of_a_cache(shards):
    given = {"in this process": 4, "over backends": memories(3), "one": 1}[shards]
    async with made(given) as cache:
        assert await cache.get("a") is MISSING
        assert await cache.get("a", None) is None
        assert await cache.get_or_load("a", upper) == "A"
        assert await cache.get("a") == cache.get_nowait("a") == "A"
        await cache.set("b", "x", tags=["t"])
        await cache.set("d", "short", ttl=0)
        assert cache.get_nowait("d", "none") == "none"
        keys = ["c", "b", "a", "e", "c"]
        found = await cache.get_or_load_many(keys, many)
        assert list(found.items()) == [("c", "C"), ("b", "x"), ("a", "A"), ("e", "E")]
        await cache.invalidate("a", "c", "nobody")
        assert [cache.get_nowait(key) for key in "ac"] == [MISSING, MISSING]
        await cache.invalidate_tags("t")
        assert cache.get_nowait("b") is MISSING
        assert await cache.get_or_load("b", upper) == "B"
        await cache.invalidate_matching("b*")
        assert cache.get_nowait("b") is MISSING
        assert await cache.get_or_load("e", upper, fresh=True) == "E"
        await cache.clear()
        assert cache.statistics().size == 0


async def test_a_batch_loader_is_called_once_for_each_shard_that_misses_keys():
    cache, calls = made(3), []

    async def load(keys):
        calls.append(keys)
        return await many(keys)

    keys = [f"k{n}" for n in range(30)]
    assert await cache.get_or_load_many(keys, load) == await many(keys)
    assert len(calls) == 3
    assert sorted(key for call in calls for key in call) == sorted(keys)
    assert await cache.get_or_load_many(keys, load) == await many(keys)
    assert await cache.get_or_load_many([], load) == {}
    assert len(calls) == 3


async def test_the_first_error_of_a_batch_leaves_bare_and_the_rest_is_stored():
    cache = made(3)
    keys = [f"k{n}" for n in range(30)]
    good = cache.shard(keys[0])

    async def load(asked):
        if cache.shard(asked[0]) is not good:
            raise OSError("no")
        await clock.yield_now()
        return await many(asked)

    with pytest.raises(OSError, match=r"^no") as caught:
        await cache.get_or_load_many(keys, load)
    assert caught.value.__notes__ == ["another shard failed as well: OSError('no')"]
    assert [cache.get_nowait(key) is MISSING for key in keys] == [
        cache.shard(key) is not good for key in keys
    ]


async def test_keys_that_a_loader_leaves_out_are_absent():
    cache = made(3)

    async def load(keys):
        return {key: key for key in keys if key % 2}

    assert await cache.get_or_load_many(range(10), load) == {n: n for n in range(1, 10, 2)}


async def test_callbacks_hear_of_each_shard():
    cache, heard = made(4), []
    keys = [f"k{n}" for n in range(200)]  # so many that none of four shards gets nothing
    subscription = cache.on_invalidate(lambda *gone: heard.append(gone))
    await cache.invalidate(*keys)
    assert len(heard) == 4
    assert sorted(key for gone in heard for key in gone) == sorted(keys)
    await cache.clear()
    assert heard[4:] == [()] * 4
    subscription.close()
    await cache.invalidate("a")
    assert len(heard) == 8


@pytest.mark.promise("cache-cancel-everywhere")
def test_cancelled_at_any_await_nothing_is_left_behind():
    def scenario() -> Trial:
        cache = made(memories(3))
        keys = [f"k{n}" for n in range(12)]

        async def work() -> None:
            async with cache:
                assert await cache.get_or_load_many(keys, many) == await many(keys)
                try:
                    await cache.invalidate(*keys)
                finally:
                    assert all(cache.get_nowait(key) is MISSING for key in keys)
                await cache.clear()

        def check() -> None:
            assert cache.statistics().size == 0, "a closed one with backends holds nothing"

        return Trial(work(), check)

    cancel_everywhere(scenario, kinds=("native", "scope", "timeout"), minimum=5)


# ---------------------------------------------------------------------- opening and maintenance


async def test_with_backends_it_has_to_be_opened():
    cache = made(memories(2))
    with pytest.raises(ClosedError):
        await cache.get_or_load("a", upper)
    async with cache:
        assert await cache.get_or_load("a", upper) == "A"
    async with cache:
        assert cache.get_nowait("a") is MISSING, "nobody kept it true meanwhile"
        assert await cache.get("a") == "A", "but the backend has it"


async def test_processes_with_the_same_shards_share_values():
    homes = memories(3)
    async with made(homes) as one, made(homes) as two:
        keys = [f"k{n}" for n in range(20)]
        await one.get_or_load_many(keys, many)

        async def nobody(asked):
            raise AssertionError(asked)

        assert await two.get_or_load_many(keys, nobody) == await many(keys)


def test_the_background_sweeps_all_shards_while_the_cache_is_open():
    async def main() -> None:
        async with made(4, ttl=10.0) as cache:
            for key in range(100):
                await cache.set(key, key)
            await clock.sleep(9.0)
            assert cache.statistics().size == 100
            await clock.sleep(2.1)
            assert cache.statistics().size == 0

    simulate(main)


def test_a_sweep_does_a_bounded_amount_of_work():
    async def main() -> None:
        cache = made(2, ttl=10.0)
        for key in range(400):
            await cache.set(key, key)
        await clock.sleep(10.0)
        gone = [cache.sweep(25) for _ in range(40)]
        assert max(gone) <= 25
        assert sum(gone) == 400
        assert cache.sweep() == 0

    simulate(main)


# -------------------------------------------------------------------------- bounds and figures


@pytest.mark.parametrize("eviction", ["s3fifo", "lru"])
async def test_the_bound_is_over_all_shards(eviction):
    cache = made(4, max_size=100, eviction=eviction)
    for key in range(1_000):
        await cache.set(key, key)
    figures = cache.statistics()
    assert figures.size == 100
    assert figures.evictions == 900
    assert all(each.size == 25 for each in figures.shards.values())


async def test_statistics_are_sums_and_those_of_each_shard():
    cache = made({"a": "memory://", "b": "memory://"}, ttl=Ttl(60.0))
    async with cache:
        for key in range(20):
            await cache.get_or_load(key, upper)
            await cache.get_or_load(key, upper)
        figures = cache.statistics()
    assert (figures.hits, figures.misses, figures.loads, figures.size) == (20, 20, 20, 20)
    assert figures.hit_ratio == 0.5
    assert list(figures.shards) == ["a", "b"]
    assert all(isinstance(each, CacheStatistics) for each in figures.shards.values())
    assert sum(each.hits for each in figures.shards.values()) == 20
    assert repr(cache) == "ShardedCache('sharded', 2 shards)"


@pytest.mark.promise("cache-bad-input")
@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"shards": 0}, ValueError, "shards must be"),
        ({"shards": -1}, ValueError, "shards must be"),
        ({"shards": 1.5}, TypeError, "shards must be"),
        ({"shards": []}, ValueError, "shards must be at least one backend"),
        ({"shards": {}}, ValueError, "shards must be at least one backend"),
        ({"shards": "redis://a"}, TypeError, "shards must be a number or several backends"),
        ({"shards": {"": "memory://"}}, ValueError, "shard must"),
        ({"shards": [7]}, TypeError, "backend must be"),
        ({"shards": None}, TypeError, "shards must be"),
        ({"name": ""}, ValueError, "name must"),
        ({"max_size": 0}, ValueError, "max_size must be"),
        ({"ttl": -1}, ValueError, "ttl must be"),
        ({"eviction": "fifo"}, ValueError, "eviction must be"),
        ({"load": 5}, TypeError, "load must be"),
    ],
)
def test_what_makes_no_sense_is_refused(options, error, message):
    with pytest.raises(error, match=message):
        made(**options)
    with pytest.raises(ValueError, match="limit must be"):
        made(2).sweep(0)


# -------------------------------------------------------------------------------- real servers


@pytest.mark.real
async def test_a_shard_whose_server_is_away_concerns_its_own_keys_alone(
    redis_url, tmp_path, monkeypatch
):
    monkeypatch.setattr(keeper, "_OPEN_WITHIN", 0.2)
    away = f"unix://{tmp_path}/nobody.sock"
    keys = [f"k{n}" for n in range(20)]
    for turn in ("cold", "warm"):
        async with made({"here": redis_url, "away": away}) as cache:
            assert {cache.shard(key).name for key in keys} == {"sharded/here", "sharded/away"}
            loaded: list[str] = []

            async def load(asked, loaded=loaded):
                loaded += asked
                return await many(asked)

            assert await cache.get_or_load_many(keys, load) == await many(keys)
            assert sorted(loaded) == sorted(
                key for key in keys if turn == "cold" or cache.shard(key).name == "sharded/away"
            )
