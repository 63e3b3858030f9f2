"""The nineteen points in which caches differ, each as a named test: what this one does."""

from __future__ import annotations

import asyncio
import math
from contextvars import ContextVar
from typing import Any

import anyio
import pytest

from aiopatterns.backends.memory.backend import MemoryBackend
from aiopatterns.cache import MISSING, Cache, LoadTimeouts, Ttl
from aiopatterns.core import clock
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.codec import MSGPACK
from aiopatterns.core.context import bind_deadline, deadline
from aiopatterns.core.errors import BackendUnavailableError, LoadAbortedError, TimeoutExceededError
from aiopatterns.testing import capture_events, simulate

pytestmark = pytest.mark.promise("cache-semantics")

colour: ContextVar[str] = ContextVar("colour", default="none")


async def settled():
    """Let all run that can, on a loop of any kind."""
    for _ in range(10):
        await sleep(0)
    await sleep(0.001)


class Source:
    """A loader that counts, takes its time (or waits for a sign), and gives a new value each time."""

    def __init__(self, delay=None, error=None):
        self.delay = delay
        self.go = asyncio.Event()
        self.error = error
        self.loads = self.ends = self.cancels = 0

    async def __call__(self, key):
        self.loads += 1
        mine = self.loads
        try:
            await (self.go.wait() if self.delay is None else sleep(self.delay))
        except asyncio.CancelledError:
            self.cancels += 1
            raise
        finally:
            self.ends += 1
        if self.error is not None:
            raise self.error
        return f"{key}#{mine}"


def cache_of(ttl=60, **options) -> Cache[str, str]:
    return Cache("test", ttl=ttl, **options)


async def callers(cache, source, count, key="k", **options):
    """Start ``count`` callers that wait for the load of one key."""
    tasks = [asyncio.create_task(cache.get_or_load(key, source, **options)) for _ in range(count)]
    await settled()
    return tasks


async def results_of(source, tasks):
    """Let the load end, and return what the callers got."""
    source.go.set()
    return await asyncio.gather(*tasks, return_exceptions=True)


async def test_01_the_loader_runs_in_a_task_of_its_own_for_all_who_wait():
    cache, source = cache_of(), Source()
    seen, scopes = [], []

    async def loader(key):
        seen.append((deadline(), colour.get(), asyncio.current_task()))
        return await source(key)

    async def hurried():
        colour.set("red")
        with bind_deadline(monotonic() + 60), anyio.CancelScope() as scope:
            scopes.append(scope)
            await cache.get_or_load("k", loader)
        return "gave up"

    first = asyncio.create_task(hurried())
    await settled()
    second = asyncio.create_task(cache.get_or_load("k", loader))
    await settled()
    scopes[0].cancel()
    assert await first == "gave up"
    source.go.set()
    assert await second == "k#1", "the deadline of the first caller is not that of the second"
    assert [each[:2] for each in seen] == [(None, "red")]
    assert seen[0][2] not in {first, second}


@pytest.mark.parametrize("who", [0, 3])
async def test_02_a_cancelled_caller_leaves_alone(who):
    cache, source = cache_of(), Source()
    tasks = await callers(cache, source, 5)
    tasks[who].cancel()
    results = await results_of(source, tasks)
    assert isinstance(results.pop(who), asyncio.CancelledError)
    assert results == ["k#1"] * 4
    assert (source.loads, source.cancels) == (1, 0)


async def test_02_the_last_caller_out_cancels_the_load():
    cache, source = cache_of(), Source()
    tasks = await callers(cache, source, 3)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert (source.loads, source.cancels, source.ends) == (1, 1, 1)
    source.delay = 0
    assert await cache.get_or_load("k", source) == "k#2"


async def test_02_or_lets_it_finish_if_wanted():
    cache, source = cache_of(load=LoadTimeouts(abandoned="finish")), Source()
    async with cache:
        (task,) = await callers(cache, source, 1)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert source.ends == 0
        source.go.set()
        assert await cache.get_or_load("k", source) == "k#1"
    assert (source.loads, source.cancels) == (1, 0)


async def test_03_an_error_reaches_all_who_wait_and_is_not_stored():
    cache, source = cache_of(), Source(error=OSError(5, "no"))
    results = await results_of(source, await callers(cache, source, 4))
    assert source.loads == 1
    assert [each.errno for each in results if isinstance(each, OSError)] == [5] * 4
    assert len({id(each) for each in results}) == 4, "each caller has an own one"
    depths = []
    for each in results:
        frame, depth = each.__traceback__, 0
        while frame is not None:
            frame, depth = frame.tb_next, depth + 1
        depths.append(depth)
    assert len(set(depths)) == 1, "no traceback grows with the number of callers"
    source.error = None
    assert await cache.get_or_load("k", source) == "k#2"
    assert cache.statistics().errors == 1


async def test_03_what_is_no_exception_is_not_stored_either():
    class Odd(BaseException):
        pass

    cache, source = cache_of(), Source(delay=0, error=Odd())
    with pytest.raises(Odd):
        await cache.get_or_load("k", source)
    assert cache.get_nowait("k") is MISSING


async def test_04_a_loader_that_cancels_itself_cancels_nobody_else():
    cache, source = cache_of(), Source(error=asyncio.CancelledError())
    results = await results_of(source, await callers(cache, source, 3))
    assert [type(each) for each in results] == [LoadAbortedError] * 3
    assert results[0].key == "k"
    assert cache.statistics().errors == 1
    source.error = None
    assert await cache.get_or_load("k", source) == "k#2"


async def test_05_none_is_a_value():
    cache: Cache[str, str | None] = Cache("none", ttl=60)
    loads = []

    async def loader(key):
        loads.append(key)

    assert await cache.get_or_load("k", loader) is None
    assert await cache.get_or_load("k", loader) is None
    assert loads == ["k"]
    assert cache.get_nowait("k", "default") is None
    assert await cache.get("other") is MISSING
    assert await cache.get("other", None) is None


def test_05_a_none_may_live_shorter():
    async def scenario():
        cache: Cache[str, str | None] = Cache("none", ttl=Ttl(60, stale=60, negative=5))
        answers = [None, "there"]

        async def loader(key):
            return answers.pop(0)

        assert await cache.get_or_load("k", loader) is None
        await sleep(4.9)
        assert await cache.get_or_load("k", loader) is None
        await sleep(0.2)
        assert await cache.get_or_load("k", loader) == "there", "a None never goes stale"
        never: Cache[str, str | None] = Cache("none", ttl=Ttl(60, negative=0))
        answers += [None, "now"]
        assert await never.get_or_load("k", loader) is None
        assert await never.get_or_load("k", loader) == "now"

    simulate(scenario)


async def test_06_a_ttl_of_zero_stores_nothing_but_callers_still_share():
    cache, source = cache_of(ttl=0), Source()
    assert await results_of(source, await callers(cache, source, 5)) == ["k#1"] * 5
    assert await cache.get_or_load("k", source) == "k#2"
    assert cache.statistics().size == 0


def test_06_none_is_for_ever_and_below_zero_is_refused():
    async def scenario():
        cache, source = cache_of(ttl=None), Source(delay=0)
        await cache.get_or_load("k", source)
        await sleep(10 * 365 * 86_400)
        assert await cache.get_or_load("k", source) == "k#1"

    simulate(scenario)
    for wrong in (-1, math.nan, math.inf):
        with pytest.raises(ValueError, match="ttl must be"):
            cache_of(ttl=wrong)


def test_07_lives_are_measured_by_the_monotonic_clock():
    async def scenario():
        cache, source = cache_of(ttl=10), Source(delay=0)
        await cache.get_or_load("k", source)
        here = clock.set_source(
            clock.ClockSource(asyncio.get_running_loop().time, lambda: 4e9, clock.rng())
        )
        try:
            assert await cache.get_or_load("k", source) == "k#1", "the wall clock has jumped"
        finally:
            clock.set_source(here)
        await sleep(9.999)
        assert await cache.get_or_load("k", source) == "k#1"
        await settled()
        assert await cache.get_or_load("k", source) == "k#2", "over at the end of the life"

    simulate(scenario)


async def test_08_a_value_is_shared_unless_it_is_copied():
    shared: Cache[str, list[int]] = Cache("shared", ttl=60)
    copied: Cache[str, list[int]] = Cache("copied", ttl=60, copy=list)

    async def loader(key):
        return [1]

    async def many(keys):
        return {key: [1] for key in keys}

    (await shared.get_or_load("k", loader)).append(2)
    assert await shared.get_or_load("k", loader) == [1, 2]
    (await copied.get_or_load("k", loader)).append(2)
    (await copied.get_or_load("k", loader)).append(2)
    (await copied.get("k", [0])).append(2)
    first = (await copied.get_or_load_many(["k", "m"], many))["m"]
    assert isinstance(first, list)
    first.append(2)
    mine: list[int] = [1]
    await copied.set("s", mine)
    mine.append(2)
    assert [copied.get_nowait(key) for key in "kms"] == [[1]] * 3


def test_13_a_stale_value_is_given_at_once_unless_a_fresh_one_is_asked_for():
    async def scenario():
        cache, source = cache_of(ttl=Ttl(10, stale=20)), Source(delay=1)
        await cache.get_or_load("k", source)
        await sleep(10)
        began = monotonic()
        assert [await cache.get_or_load("k", source) for _ in range(3)] == ["k#1"] * 3
        assert monotonic() == began
        assert await cache.get_or_load("k", source, fresh=True) == "k#2", "joins the refresh"
        assert monotonic() == began + 1
        assert source.loads == 2
        assert await cache.get_or_load("k", source, fresh=True) == "k#3"
        await sleep(30)
        assert await cache.get_or_load("k", source) == "k#4", "beyond stale: who asks waits"
        figures = cache.statistics()
        assert (figures.stale, figures.loads) == (3, 4)

    simulate(scenario)


def test_13_a_stale_value_stands_in_for_a_load_that_fails():
    async def scenario():
        cache, source = cache_of(ttl=Ttl(10, stale=100)), Source(delay=0)
        await cache.get_or_load("k", source)
        await sleep(10)
        source.error = OSError("down")
        with capture_events() as events:
            assert await cache.get_or_load("k", source) == "k#1"
            await sleep(0.5)
            assert await cache.get_or_load("k", source) == "k#1"
            assert source.loads == 2, "a source that fails is not asked again at once"
            await sleep(0.6)
            assert await cache.get_or_load("k", source) == "k#1"
            await sleep(0.1)
            assert source.loads == 3
        assert [event.name for event in events] == ["aiopatterns.cache.load_failed"] * 2
        assert await cache.get_or_load("k", source, fresh=True) == "k#1"
        assert cache.statistics().errors == 3
        source.error = None
        await sleep(1)
        await cache.get_or_load("k", source)
        await sleep(0.1)
        assert await cache.get_or_load("k", source) == "k#5"

    simulate(scenario)


def test_14_after_the_soft_time_the_value_at_hand_is_taken_while_the_load_goes_on():
    async def scenario():
        cache = cache_of(ttl=10, load=LoadTimeouts(soft=0.5, hard=5))
        source = Source(delay=1)
        began = monotonic()
        assert await cache.get_or_load("k", source) == "k#1", "nothing at hand: waits on"
        assert monotonic() == began + 1
        assert await cache.get_or_load("k", source, fresh=True) == "k#1"
        assert monotonic() == began + 1.5
        await sleep(0.6)
        assert await cache.get_or_load("k", source) == "k#2", "the load went on"
        assert source.cancels == 0

    simulate(scenario)


def test_14_the_hard_time_cancels_the_load_and_frees_the_key():
    async def scenario():
        cache, source = cache_of(load=LoadTimeouts(hard=2)), Source(delay=60)
        tasks = await callers(cache, source, 3)
        results = await asyncio.gather(*tasks, return_exceptions=True)
        assert [type(each) for each in results] == [TimeoutExceededError] * 3
        assert monotonic() == 2
        assert (source.loads, source.cancels) == (1, 1)
        source.delay = 1
        assert await cache.get_or_load("k", source) == "k#2"

    simulate(scenario)


@pytest.mark.parametrize(
    "forget",
    [
        lambda cache: cache.invalidate("k"),
        lambda cache: cache.invalidate_tags("t"),
        lambda cache: cache.invalidate_matching("k*"),
        lambda cache: cache.clear(),
        lambda cache: cache.set("k", "set"),
    ],
    ids=["key", "tag", "pattern", "all", "set"],
)
async def test_15_what_was_being_loaded_during_an_invalidation_is_not_stored(forget):
    cache, source = cache_of(), Source()
    before = await callers(cache, source, 2, tags=["t"])
    await forget(cache)
    set_meanwhile = cache.get_nowait("k")
    after = await callers(cache, source, 2, tags=["t"])
    source.go.set()
    assert await asyncio.gather(*before) == ["k#1"] * 2, "they asked before it"
    late = set_meanwhile if set_meanwhile is not MISSING else "k#2"
    assert await asyncio.gather(*after) == [late] * 2
    assert cache.get_nowait("k") == late
    assert cache.statistics().rejected_fills == 1


async def test_16_a_batch_loads_only_what_nobody_has_and_nobody_loads():
    cache: Cache[int, str] = Cache("batch", ttl=Ttl(60, negative=5))
    asked = []

    async def one(key):
        await sleep(0.02)
        return f"one {key}"

    async def many(keys):
        asked.append(keys)
        await sleep(0.01)
        return {key: KeyError(key) if key == 5 else f"many {key}" for key in keys if key != 4}

    await cache.set(1, "here")
    single = asyncio.create_task(cache.get_or_load(2, one))
    await settled()
    found = await cache.get_or_load_many([3, 1, 2, 3, 4, 5, 1], many)
    assert asked == [[3, 4, 5]]
    assert list(found) == [3, 1, 2, 5], "in the order of the question, without what is absent"
    assert (found[1], found[2], found[3]) == ("here", "one 2", "many 3")
    assert isinstance(found[5], KeyError)
    await cache.get_or_load_many([4, 5], many)
    assert asked[1:] == [[5]], "an absent key is remembered, an error never"
    assert await cache.get_or_load(4, one) == "one 4", "a single loader may know better"
    assert await single == "one 2"


def test_17_a_life_may_begin_anew_with_every_answer():
    async def scenario():
        plain, source = cache_of(ttl=10), Source(delay=0)
        sliding = cache_of(ttl=Ttl(10, sliding=True))
        for cache in (plain, sliding):
            await cache.get_or_load("k", source)
        for _ in range(5):
            await sleep(9)
            await sliding.get_or_load("k", source)
        assert sliding.get_nowait("k") == "k#2"
        assert plain.get_nowait("k") is MISSING
        await sleep(10)
        assert sliding.get_nowait("k") is MISSING

    simulate(scenario)


def test_18_one_cache_serves_one_loop_after_another():
    cache, source = cache_of(), Source(delay=60)

    async def interrupted():
        tasks = await callers(cache, source, 2)
        tasks[0].cancel()

    async def later():
        source.delay = 0
        return await cache.get_or_load("k", source), await cache.get_or_load("k", source)

    asyncio.run(interrupted())
    assert asyncio.run(later()) == ("k#2", "k#2")
    assert simulate(later) == ("k#2", "k#2")


class Odd:
    """What JSON has no way to write."""


async def test_09_a_value_that_cannot_be_written_is_returned_and_kept_near():
    made = Odd()

    async def loader(key):
        return made

    async with Cache[str, Odd]("odd", ttl=60, backend="memory://") as cache:
        with capture_events() as events:
            assert await cache.get_or_load("k", loader) is made
            assert await cache.get_or_load("k", loader) is made
            await cache.set("s", made)
            assert cache.get_nowait("s") is made
        assert "aiopatterns.cache.not_encoded" in {event.name for event in events}
        assert cache.statistics().loads == 1


@pytest.mark.parametrize("damage", [b"", b"\x80\x04K\x01.", b"V\x01garbage", b"V\x09newer"])
async def test_10_what_cannot_be_read_is_a_miss_and_overwritten(damage):
    source = Source(delay=0)
    backend = MemoryBackend()
    async with backend, Cache[str, str]("c", ttl=60, backend=backend) as cache:
        assert cache._far is not None
        await backend.kv.set(cache._far._names.key("k"), damage)
        assert await cache.get("k") is MISSING
        assert await cache.get_or_load("k", source) == "k#1"
        async with Cache[str, str]("c", ttl=60, backend=backend) as other:
            assert await other.get("k") == "k#1"


async def test_10_a_value_of_another_type_is_a_miss():
    source = Source(delay=0)
    backend = MemoryBackend()
    async with backend, Cache[str, object]("c", ttl=60, backend=backend) as numbers:
        await numbers.set("k", 17)
        async with Cache[str, str]("c", ttl=60, backend=backend, type=str) as texts:
            assert await texts.get_or_load("k", source) == "k#1"


class Away:
    """A kv whose server does not answer, or hangs."""

    hangs = False
    away = False

    def __init__(self, kv):
        self.inner = kv

    def __getattr__(self, name):
        async def call(*args, **options):
            if self.hangs:
                await sleep(3600)
            if self.away:
                raise BackendUnavailableError("nobody answers")
            return await getattr(self.inner, name)(*args, **options)

        return call


def failing() -> Any:
    backend: Any = MemoryBackend()
    backend.kv = Away(backend.kv)
    return backend


@pytest.mark.parametrize("how", ["away", "hangs"])
def test_11_a_server_that_is_down_is_a_miss_and_soon_not_even_a_wait(how):
    async def scenario():
        backend, source = failing(), Source(delay=0)
        async with backend, Cache[str, str]("down", ttl=60, backend=backend) as cache:
            await cache.get_or_load("before", source)
            setattr(backend.kv, how, True)
            began = monotonic()
            assert await cache.get_or_load("k", source) == "k#2"
            assert monotonic() - began <= 0.3
            began = monotonic()
            for number in range(100):
                assert await cache.get_or_load(f"k{number}", source) == f"k{number}#{3 + number}"
            found = await cache.get_or_load_many(["m", "n"], many)
            assert found == {"m": "m", "n": "n"}
            assert monotonic() == began, "known to be down: nobody waits"
            assert await cache.get_or_load("k", source) == "k#2", "the near tier goes on alone"

    async def many(keys):
        return {key: key for key in keys}

    simulate(scenario)


@pytest.mark.parametrize("how", ["away", "hangs"])
def test_12_an_invalidation_that_could_not_be_told_is_told_later(how):
    async def scenario():
        backend, source = failing(), Source(delay=0)
        async with backend, Cache[str, str]("down", ttl=60, backend=backend) as cache:
            await cache.get_or_load("k", source)
            setattr(backend.kv, how, True)
            await cache.invalidate("k")
            assert cache.get_nowait("k") is MISSING
            with pytest.raises(BackendUnavailableError, match="could not tell"):
                await cache.invalidate("k", strict=True)
            await cache.set("s", "near only")
            assert cache.get_nowait("s") == "near only"
            setattr(backend.kv, how, False)
            await sleep(10)
            async with Cache[str, str]("down", ttl=60, backend=backend) as other:
                assert await other.get("k") is MISSING
                assert await other.get_or_load("k", source) == "k#2"

    simulate(scenario)


async def test_19_what_is_stored_is_data_and_no_code_is_run():
    backend = MemoryBackend()
    async with backend, Cache[str, object]("json", ttl=60, backend=backend) as cache:
        await cache.set("k", {"a": [1, None]})
        assert cache._far is not None
        raw = await backend.kv.get(cache._far._names.key("k"))
        assert raw is not None
        assert raw.endswith(b'{"a":[1,null]}')
        async with Cache[str, object]("json", ttl=60, backend=backend, codec=MSGPACK) as other:
            assert await other.get("k") is MISSING, "another codec is another language"
