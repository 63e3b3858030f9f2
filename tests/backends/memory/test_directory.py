from __future__ import annotations

import anyio
import pytest

from aiopatterns.backends.memory import MemoryBackend
from aiopatterns.backends.records import Members
from aiopatterns.core.clock import monotonic, rng, sleep
from aiopatterns.core.errors import ClosedError
from aiopatterns.testing import Trial, cancel_everywhere, explore, simulate


def test_members_live_until_their_time_is_over():
    async def scenario() -> None:
        async with MemoryBackend() as backend:
            directory = backend.directory("d")
            assert await directory.snapshot() == Members(0, {})
            assert await directory.put("a", b"1", ttl=5)
            assert await directory.put("b", b"2", ttl=10)
            assert await directory.snapshot() == Members(2, {"a": b"1", "b": b"2"})
            await sleep(4)
            assert await directory.put("a", b"1", ttl=5)
            assert (await directory.snapshot()).revision == 2
            await sleep(4.999)
            assert set((await directory.snapshot()).members) == {"a", "b"}
            await sleep(0.001)
            assert await directory.snapshot() == Members(3, {"b": b"2"})
            await sleep(1)
            assert await directory.snapshot() == Members(4, {})
            assert await directory.snapshot() == Members(4, {})

    simulate(scenario)


def test_all_who_expire_together_make_one_revision():
    async def scenario() -> None:
        async with MemoryBackend() as backend:
            directory = backend.directory("d")
            for number in range(10):
                await directory.put(f"{number}", b"", ttl=5)
            await sleep(5)
            assert await directory.put("new", b"", ttl=5)
            assert await directory.snapshot() == Members(12, {"new": b""})

    simulate(scenario)


async def test_fences_keep_the_old_from_the_new():
    async with MemoryBackend() as backend:
        directory = backend.directory("d")
        assert await directory.put("a", b"1", ttl=50, fence=2)
        assert not await directory.put("a", b"0", ttl=50, fence=1)
        assert not await directory.remove("a", fence=1)
        assert await directory.put("a", b"2", ttl=50, fence=2)
        assert (await directory.snapshot()) == Members(2, {"a": b"2"})
        assert await directory.put("a", b"2", ttl=50, fence=3)
        assert (await directory.snapshot()).revision == 3
        assert await directory.remove("a", fence=3)
        assert not await directory.remove("a")
        assert await directory.put("a", b"1", ttl=50)
        assert await directory.remove("a")
        assert (await directory.snapshot()).members == {}


async def test_renewals_leave_no_heap():
    async with MemoryBackend() as backend:
        directory = backend.directory("d")
        for _ in range(5_000):
            await directory.put("a", b"1", ttl=1_000)
        assert len(directory._heap) < 200
        assert (await directory.snapshot()) == Members(1, {"a": b"1"})


def test_a_watcher_sees_every_change_that_it_has_time_for():
    async def scenario() -> None:
        async with MemoryBackend() as backend:
            directory = backend.directory("d")
            async with directory.watch() as snapshots:
                assert await anext(snapshots) == Members(0, {})
                await directory.put("a", b"1", ttl=5)
                await directory.put("a", b"2", ttl=5)
                assert await anext(snapshots) == Members(2, {"a": b"2"})
                began = monotonic()
                assert await anext(snapshots) == Members(3, {})
                assert monotonic() - began == pytest.approx(5)

    simulate(scenario)


def test_a_change_wakes_a_watcher_at_once():
    async def scenario() -> None:
        async with MemoryBackend() as backend:
            directory = backend.directory("d")

            async def change() -> None:
                await sleep(3)
                await directory.put("a", b"1", ttl=50)
                await sleep(3)
                await directory.remove("a")

            async with anyio.create_task_group() as tasks, directory.watch(interval=1_000) as seen:
                tasks.start_soon(change)
                assert await anext(seen) == Members(0, {})
                assert await anext(seen) == Members(1, {"a": b"1"})
                assert monotonic() == 3
                assert await anext(seen) == Members(2, {})
                assert monotonic() == 6

    simulate(scenario)


def test_a_watcher_ends_with_the_newest_under_any_schedule():
    async def scenario() -> None:
        seen: list[Members] = []

        async def watch(directory) -> None:
            async with directory.watch(interval=100) as snapshots:
                async for members in snapshots:
                    assert not seen or members.revision > seen[-1].revision
                    seen.append(members)
                    if b"end" in members.members.values():
                        return
                    await sleep(rng().random())

        async with MemoryBackend() as backend, anyio.create_task_group() as tasks:
            directory = backend.directory("d")
            tasks.start_soon(watch, directory)
            for number in range(10):
                member = rng().choice("abc")
                if rng().random() < 0.3:
                    await directory.remove(member)
                else:
                    await directory.put(member, b"%d" % number, ttl=rng().choice([0.5, 50]))
                await sleep(rng().choice([0, 0.3]))
            await directory.put("z", b"end", ttl=50)
        assert seen[-1].members["z"] == b"end"

    explore(scenario, range(200))


async def test_a_watch_ends_with_its_block_and_begins_anew():
    async with MemoryBackend() as backend:
        watch = backend.directory("d").watch()
        for _ in range(2):
            async with watch as snapshots:
                assert [await anext(snapshots)] == [Members(0, {})]
                with pytest.raises(RuntimeError, match="open already; enter it only once"):
                    await snapshots.__aenter__()
            assert [each async for each in watch] == []


def test_closing_the_backend_or_the_watch_wakes_who_waits():
    async def scenario() -> None:
        backend = MemoryBackend()
        told = []

        async def look(watch) -> None:
            await anext(watch)
            try:
                told.append(await anext(watch, None))
            except ClosedError as error:
                told.append(type(error))

        await backend.__aenter__()
        async with anyio.create_task_group() as tasks:
            watches = [backend.directory("d").watch(interval=1_000) for _ in range(2)]
            for watch in watches:
                await watch.__aenter__()
                tasks.start_soon(look, watch)
            await sleep(1)
            await watches[0].__aexit__(None, None, None)
            await sleep(1)
            assert told == [None]
            await backend.__aexit__(None, None, None)
        assert told == [None, ClosedError]
        assert monotonic() == 2

    simulate(scenario)


def test_cancelling_a_watcher_loses_nothing():
    def scenario() -> Trial:
        backend = MemoryBackend()
        directory = backend.directory("d")
        watch = directory.watch()

        async def work() -> None:
            async with backend, watch:
                await anext(watch)
                await directory.put("a", b"1", ttl=2.5)
                await anext(watch)
                await anext(watch)

        async def check() -> None:
            async with backend:
                assert await directory.put("b", b"", ttl=1)

        return Trial(work(), check)

    cancel_everywhere(scenario, minimum=3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"member": ""}, "member must be a non-empty string"),
        ({"data": "x"}, "data must be bytes"),
        ({"ttl": 0}, "ttl must be"),
        ({"fence": -1}, "fence must be a whole number >= 0"),
        ({"fence": 2**53 + 1}, "fence must be a whole number <= 9007199254740992"),
    ],
)
async def test_bad_input_is_refused(arguments, message):
    async with MemoryBackend() as backend:
        good = {"member": "a", "data": b"", "ttl": 1.0}
        with pytest.raises((ValueError, TypeError), match=message):
            await backend.directory("d").put(**(good | arguments))


async def test_other_bad_input_is_refused():
    async with MemoryBackend() as backend:
        directory = backend.directory("d")
        with pytest.raises(ValueError, match="name must be a non-empty string"):
            backend.directory("")
        with pytest.raises(ValueError, match="interval must be a finite number > 0"):
            directory.watch(interval=0)
        with pytest.raises(ValueError, match="member must be a non-empty string"):
            await directory.remove("")
        with pytest.raises(ValueError, match="fence must be"):
            await directory.remove("a", fence=-1)


async def test_a_closed_backend_is_told_so():
    directory = MemoryBackend().directory("d")
    for call in (
        directory.put("a", b"", ttl=1),
        directory.remove("a"),
        directory.snapshot(),
        directory.watch().__aenter__(),
    ):
        with pytest.raises(ClosedError):
            await call
