from __future__ import annotations

import anyio
import pytest

from aiopatterns.backends import open_backend
from aiopatterns.backends.records import Members
from aiopatterns.backends.redis.directory import MARGIN, RedisDirectory
from aiopatterns.backends.redis.embedded import RedisServer
from aiopatterns.backends.redis.wire import Wire
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.errors import BackendError, BackendUnavailableError, ClosedError

pytestmark = pytest.mark.real


@pytest.fixture
async def backend(redis_url):
    async with open_backend(redis_url) as opened:
        yield opened


@pytest.fixture
def wire(redis_url):
    with Wire(redis_url) as connection:
        yield connection


async def test_members_live_until_their_time_is_over(backend, wire):
    directory = backend.directory("d")
    first = await directory.snapshot()
    assert first.members == {}
    assert await directory.put("a", b"1:2", ttl=50)
    assert await directory.put("é", b"\x00", ttl=50)
    second = await directory.snapshot()
    assert second.members == {"a": b"1:2", "é": b"\x00"}
    assert second.revision > first.revision
    assert await directory.put("é", b"\x00", ttl=60)
    assert await directory.snapshot() == second
    wire.call("ZADD", "{ap:dir:d}:exp", 1, "a")  # as if its time were over
    third = await directory.snapshot()
    assert third.members == {"é": b"\x00"}
    assert third.revision > second.revision
    assert await directory.snapshot() == third


async def test_whoever_comes_next_removes_who_has_expired(backend, wire):
    directory = backend.directory("d")
    for number in range(150):
        await directory.put(f"{number}", b"", ttl=50)
    await directory.put("kept", b"", ttl=50, fence=7)
    for number in range(150):  # as if their time were over
        wire.call("ZADD", "{ap:dir:d}:exp", 1, f"{number}")
    # A refused put and one for an expired member: a hundred leave with the first, the rest after.
    assert not await directory.put("kept", b"", ttl=50, fence=1)
    assert wire.call("ZCARD", "{ap:dir:d}:exp") == 51
    [expired, *_] = wire.call("ZRANGE", "{ap:dir:d}:exp", 0, 0)
    assert not await directory.remove(expired)
    assert await directory.put(expired, b"new", ttl=50)
    assert wire.call("HLEN", "{ap:dir:d}:data") == 2
    assert (await directory.snapshot()).members == {"kept": b"", expired: b"new"}


async def test_fences_keep_the_old_from_the_new(backend):
    directory = backend.directory("d")
    assert await directory.put("a", b"1", ttl=50, fence=2**53 - 1)
    assert not await directory.put("a", b"0", ttl=50, fence=2**53 - 2)
    assert not await directory.remove("a", fence=1)
    before = await directory.snapshot()
    assert await directory.put("a", b"1", ttl=50, fence=2**53)
    assert (await directory.snapshot()).revision > before.revision
    assert await directory.remove("a", fence=2**53)
    assert not await directory.remove("a")


async def test_nothing_stays_for_ever(backend, wire):
    directory = backend.directory("d")
    keys = [f"{{ap:dir:d}}:{field}" for field in ("data", "exp", "rev")]
    await directory.put("a", b"1", ttl=500)
    await directory.put("b", b"1", ttl=5)
    for key in keys:
        assert MARGIN + 499_000 < wire.call("PTTL", key) <= MARGIN + 500_000
    await directory.put("b", b"1", ttl=900)
    for key in keys:
        assert MARGIN + 899_000 < wire.call("PTTL", key) <= MARGIN + 900_000
    await directory.remove("a")
    await directory.remove("b")
    assert wire.call("EXISTS", *keys[:2]) == 0
    wire.call("PEXPIRE", keys[2], MARGIN // 2 - 10_000)
    await directory.snapshot()
    assert wire.call("PTTL", keys[2]) > MARGIN - 10_000
    await backend.directory("looked at").snapshot()
    assert 0 < wire.call("PTTL", "{ap:dir:looked at}:rev") <= MARGIN


async def test_a_revision_that_was_forgotten_begins_above_all_before(backend, wire):
    directory = backend.directory("d")
    await directory.put("a", b"1", ttl=50)
    before = (await directory.snapshot()).revision
    wire.call("DEL", *(f"{{ap:dir:d}}:{field}" for field in ("data", "exp", "rev")))
    after = await directory.snapshot()
    assert after.members == {}
    assert after.revision > before


async def test_names_are_strangers(backend):
    await backend.directory("a}").put("m", b"1", ttl=50)
    await backend.directory("a%7D").put("m", b"2", ttl=50)
    await backend.directory("a").put("m", b"3", ttl=50)
    found = [(await backend.directory(name).snapshot()).members for name in ("a}", "a%7D", "a")]
    assert found == [{"m": b"1"}, {"m": b"2"}, {"m": b"3"}]


async def test_a_change_wakes_a_watcher_at_once_and_its_messages_are_nobody_elses(backend):
    directory = backend.directory("d")
    async with (
        backend.pubsub.subscribe(patterns=["*"]) as all_messages,
        directory.watch(interval=30) as snapshots,
    ):
        first = await anext(snapshots)
        assert first.members == {}
        began = monotonic()
        await directory.put("a", b"1", ttl=50)
        second = await anext(snapshots)
        assert second.members == {"a": b"1"}
        await directory.remove("a")
        third = await anext(snapshots)
        assert third.members == {}
        assert first.revision < second.revision < third.revision
        assert monotonic() - began < 5
        await backend.pubsub.publish("end", b"")
        assert (await anext(all_messages)).channel == "end"


async def test_a_watcher_notices_an_expiry_by_itself(backend, wire):
    directory = backend.directory("d")
    await directory.put("a", b"1", ttl=50)
    async with directory.watch(interval=0.02) as snapshots:
        assert (await anext(snapshots)).members == {"a": b"1"}
        wire.call("ZADD", "{ap:dir:d}:exp", 1, "a")  # as if its time were over
        assert (await anext(snapshots)).members == {}


async def test_a_slow_watcher_skips_to_the_newest(backend):
    directory = backend.directory("d")
    async with directory.watch(interval=30) as snapshots:
        await anext(snapshots)
        for number in range(20):
            await directory.put("a", b"%d" % number, ttl=50)
        assert (await anext(snapshots)).members == {"a": b"19"}
        with anyio.move_on_after(0.1) as scope:
            await anext(snapshots)
        assert scope.cancelled_caught
        await directory.remove("a")  # a cancelled wait has lost nothing
        assert (await anext(snapshots)).members == {}


async def test_a_watch_ends_with_its_block_and_begins_anew(backend):
    watch = backend.directory("d").watch()
    for _ in range(2):
        async with watch as snapshots:
            assert (await anext(snapshots)).members == {}
            with pytest.raises(RuntimeError, match="open already; enter it only once"):
                await snapshots.__aenter__()
        assert [each async for each in watch] == []
    await watch.__aexit__(None, None, None)


async def test_a_server_that_goes_away_delays_a_watcher_and_loses_nothing(tmp_path):
    async with RedisServer(private=True) as server:
        async with open_backend(server.url) as backend:
            directory = backend.directory("d")
            await directory.put("a", b"1", ttl=50)
            async with directory.watch(interval=0.02) as snapshots:
                assert (await anext(snapshots)).members == {"a": b"1"}
                seen: list[Members] = []

                async def look() -> None:
                    seen.append(await anext(snapshots))

                async with anyio.create_task_group() as tasks:
                    tasks.start_soon(look)
                    await anyio.to_thread.run_sync(server.kill)
                    await sleep(0.1)
                    assert seen == []
                    await anyio.to_thread.run_sync(server.restart)
                assert seen[0].members == {}


async def test_a_watcher_goes_on_when_an_outage_was_longer_than_a_call(backend, monkeypatch):
    look, failures = RedisDirectory.look, [BackendUnavailableError("away"), None]

    async def flaky(directory, seen):
        if (failure := failures.pop() if failures else None) is not None:
            raise failure
        return await look(directory, seen)

    monkeypatch.setattr(RedisDirectory, "look", flaky)
    async with backend.directory("d").watch(interval=0.01) as snapshots:
        first = await anext(snapshots)
        with anyio.move_on_after(0.05):
            await anext(snapshots)
        assert failures == []
        await backend.directory("d").put("a", b"", ttl=50)
        assert (await anext(snapshots)).revision > first.revision


@pytest.mark.promise("backends-full-server")
async def test_a_full_server_takes_renewals_but_nothing_new():
    async with RedisServer(private=True) as server, open_backend(server.url) as backend:
        directory, lease = backend.directory("d"), backend.lease("l")
        held = await lease.try_acquire(ttl=50)
        assert held is not None
        assert await directory.put("a", b"1", ttl=50)
        with Wire(server.url) as wire:
            wire.call("CONFIG", "SET", "maxmemory", 1)
        assert await directory.put("a", b"1", ttl=90)
        assert await held.renew()
        with pytest.raises(BackendError, match="OOM"):
            await directory.put("b", b"1", ttl=50)
        with pytest.raises(BackendError, match="OOM"):
            await backend.lease("other").try_acquire(ttl=50)
        assert (await directory.snapshot()).members == {"a": b"1"}
        assert await directory.remove("a")
        assert await held.release()


async def test_a_lost_answer_makes_one_revision(fault_proxy):
    async with fault_proxy as proxy, open_backend(proxy.url) as backend:
        directory = backend.directory("d")
        proxy.drop_replies(matching=b"ap:")
        assert await directory.put("a", b"1", ttl=50)
        proxy.drop_replies(matching=b"ap:")
        one = await directory.snapshot()
        proxy.drop_replies(matching=b"ap:")
        assert await directory.put("a", b"1", ttl=60)
        assert await directory.snapshot() == one
        proxy.drop_replies(matching=b"ap:")
        await directory.remove("a")  # whoever asks again is told that it was absent
        assert (await directory.snapshot()).members == {}


@pytest.mark.promise("backends-round-trips")
async def test_every_call_is_one_round_trip(backend):
    directory = backend.directory("d")
    before = 0
    for _ in range(2):  # the first time the scripts are not known
        before = backend.statistics().round_trips
        assert await directory.put("a", b"1", ttl=50)
        assert (await directory.snapshot()).members == {"a": b"1"}
        assert await directory.remove("a")
    assert backend.statistics().round_trips == before + 3


async def test_bad_input_is_refused(backend):
    directory = backend.directory("d")
    with pytest.raises(ValueError, match="name must be a non-empty string"):
        backend.directory("")
    with pytest.raises(ValueError, match="interval must be a finite number > 0"):
        directory.watch(interval=0)
    for call, message in (
        (lambda: directory.put("", b"", ttl=1), "member must be a non-empty string"),
        (lambda: directory.put("a", "b", ttl=1), "data must be bytes"),
        (lambda: directory.put("a", b"", ttl=0), "ttl must be"),
        (lambda: directory.put("a", b"", ttl=1, fence=-1), "fence must be"),
        (lambda: directory.remove(""), "member must be a non-empty string"),
        (lambda: directory.remove("a", fence=2**53 + 1), "fence must be"),
    ):
        with pytest.raises((ValueError, TypeError), match=message):
            await call()


async def test_a_closed_backend_is_told_so(redis_url):
    directory = open_backend(redis_url).directory("d")
    watch = directory.watch()
    for call in (
        directory.put("a", b"", ttl=1),
        directory.remove("a"),
        directory.snapshot(),
        watch.__aenter__(),
        watch.__aenter__(),
    ):
        with pytest.raises(ClosedError):
            await call
