"""Conformance of :class:`~aiopatterns.backends.protocols.Directory`: members, revision, fence."""

from __future__ import annotations

import math
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, cast

from anyio import create_task_group, fail_after, move_on_after

from aiopatterns.core.clock import monotonic
from aiopatterns.testing.conformance_base import PATIENCE, Conformance, refusal, timely

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiopatterns.backends.protocols import Backend, Directory
    from aiopatterns.backends.records import Members

__all__ = ["DirectoryConformance"]


class DirectoryConformance(Conformance):
    """Tests of directories; see :class:`Conformance` for what a subclass brings."""

    async def test_an_empty_directory(self, backend: Backend) -> None:
        """``snapshot``: "Return the members that are alive, and the revision."."""
        directory = backend.directory("users")
        first, second = await directory.snapshot(), await directory.snapshot()
        assert first.members == {}
        assert first == second

    async def test_members_are_kept_as_they_were_put(self, backend: Backend) -> None:
        """``put``: "Add, change or renew ``member``"."""
        directory = backend.directory("users")
        members = {
            "a": bytes(range(256)),
            "a b": b"",
            "\u00e9\u4e2d": b"x" * 10_000,
            "m" * 1024: b"1",
        }
        for member, data in members.items():
            assert await directory.put(member, data, ttl=600)
        assert (await directory.snapshot()).members == members
        assert (await backend.directory("others").snapshot()).members == {}

    async def test_the_revision_grows_with_every_change(self, backend: Backend) -> None:
        """Directory: "a revision that grows with every change"."""
        directory, seen = backend.directory("users"), list[int]()
        seen.append((await directory.snapshot()).revision)
        await directory.put("a", b"1", ttl=600)
        seen.append((await directory.snapshot()).revision)
        await directory.put("a", b"2", ttl=600)
        seen.append((await directory.snapshot()).revision)
        await directory.put("b", b"2", ttl=600)
        seen.append((await directory.snapshot()).revision)
        await directory.put("b", b"2", ttl=600, fence=1)
        seen.append((await directory.snapshot()).revision)
        await directory.remove("a")
        seen.append((await directory.snapshot()).revision)
        assert seen == sorted(set(seen))

    async def test_a_renewal_leaves_the_revision(self, backend: Backend) -> None:
        """``put``: "The same data and fence again is a renewal: ... the revision stays."."""
        directory = backend.directory("users")
        await directory.put("a", b"1", ttl=600, fence=3)
        before = await directory.snapshot()
        assert await directory.put("a", b"1", ttl=300, fence=3)
        assert await directory.snapshot() == before

    async def test_a_member_expires(self, backend: Backend) -> None:
        """``snapshot``: "Whoever looks first after members have expired makes the new revision."."""
        directory = backend.directory("users")
        await directory.put("a", b"1", ttl=self.life(1))
        await directory.put("b", b"2", ttl=600)
        before = (await directory.snapshot()).revision
        await self.pause(2)
        after = await directory.snapshot()
        assert after.members == {"b": b"2"}
        assert after.revision > before
        assert await directory.snapshot() == after
        assert not await directory.remove("a")

    @timely
    async def test_a_renewal_starts_the_life_anew(self, backend: Backend) -> None:
        """``put``: "the life starts anew"."""
        directory = backend.directory(self.name("users"))
        await directory.put("a", b"1", ttl=self.life(3))
        for _ in range(3):
            await self.pause(1.5)
            await directory.put("a", b"1", ttl=self.life(3))
        await self.pause(1.5)
        assert (await directory.snapshot()).members == {"a": b"1"}
        await self.pause(3)
        assert (await directory.snapshot()).members == {}

    async def test_an_expired_member_comes_back_as_new(self, backend: Backend) -> None:
        """A put after the life is over is a change, though its data are the same."""
        directory = backend.directory("users")
        await directory.put("a", b"1", ttl=self.life(1))
        before = (await directory.snapshot()).revision
        await self.pause(2)
        assert await directory.put("a", b"1", ttl=600)
        after = await directory.snapshot()
        assert after.members == {"a": b"1"}
        assert after.revision > before

    async def test_the_last_member_and_the_revision(self, backend: Backend) -> None:
        """The revision grows also when the directory was empty in between."""
        directory, seen = backend.directory("users"), list[int]()
        for _ in range(3):
            await directory.put("a", b"1", ttl=600)
            seen.append((await directory.snapshot()).revision)
            assert await directory.remove("a")
            seen.append((await directory.snapshot()).revision)
        assert seen == sorted(set(seen))

    async def test_remove_tells_whether_it_did(self, backend: Backend) -> None:
        """``remove``: "False if it was absent"; and then nothing changes."""
        directory = backend.directory("users")
        before = await directory.snapshot()
        assert not await directory.remove("a")
        assert await directory.snapshot() == before
        await directory.put("a", b"1", ttl=600)
        assert await directory.remove("a")
        assert not await directory.remove("a")

    async def test_a_lower_fence_is_refused(self, backend: Backend) -> None:
        """Directory: "a ``put`` or ``remove`` with a lower fence than the stored one is refused"."""
        directory = backend.directory("users")
        assert await directory.put("a", b"new", ttl=600, fence=7)
        before = await directory.snapshot()
        assert not await directory.put("a", b"old", ttl=600, fence=6)
        assert not await directory.put("a", b"new", ttl=600)
        assert not await directory.remove("a", fence=6)
        assert await directory.snapshot() == before
        assert await directory.put("a", b"same", ttl=600, fence=7)
        assert await directory.put("a", b"newer", ttl=600, fence=8)
        assert await directory.remove("a", fence=8)

    async def test_remove_without_a_fence_removes(self, backend: Backend) -> None:
        """``remove``: ``fence`` None asks for no fence."""
        directory = backend.directory("users")
        await directory.put("a", b"1", ttl=600, fence=7)
        assert await directory.remove("a")
        await directory.put("b", b"1", ttl=600, fence=2**53)
        assert not await directory.remove("b", fence=2**53 - 1)
        assert not await directory.put("b", b"2", ttl=600, fence=2**53 - 1)
        assert await directory.remove("b", fence=2**53)

    @timely
    async def test_a_refused_put_does_not_renew(self, backend: Backend) -> None:
        """``put``: "False if a higher fence is stored", and the life goes on."""
        directory = backend.directory(self.name("users"))
        await directory.put("a", b"1", ttl=self.life(1), fence=2)
        assert not await directory.put("a", b"1", ttl=600, fence=1)
        await self.pause(2)
        assert (await directory.snapshot()).members == {}

    async def test_concurrent_puts_all_count(self, backend: Backend) -> None:
        """``put`` is an atomic step: "Anything else makes a new revision."."""
        directory = backend.directory("users")
        before = (await directory.snapshot()).revision

        async def put(number: int) -> None:
            assert await directory.put(f"member-{number}", b"%d" % number, ttl=600)

        async with create_task_group() as group:
            for number in range(100):
                group.start_soon(put, number)
        after = await directory.snapshot()
        assert after.members == {f"member-{number}": b"%d" % number for number in range(100)}
        assert after.revision >= before + 100

    async def test_a_snapshot_is_nobody_elses(self, backend: Backend) -> None:
        """``snapshot``: the members "at one instant"."""
        directory = backend.directory("users")
        await directory.put("a", b"1", ttl=600)
        (await directory.snapshot()).members.clear()
        assert (await directory.snapshot()).members == {"a": b"1"}

    async def test_watching_tells_every_change(self, backend: Backend) -> None:
        """``watch``: "the first at once, then one after each new revision"."""
        directory = backend.directory("users")
        await directory.put("a", b"1", ttl=600)
        async with directory.watch(interval=600) as snapshots:
            assert await _next(snapshots) == await directory.snapshot()
            await directory.put("a", b"1", ttl=600)  # a renewal is nothing to tell
            await directory.put("b", b"2", ttl=600)
            assert (await _next(snapshots)).members == {"a": b"1", "b": b"2"}
            await directory.remove("a")
            assert (await _next(snapshots)).members == {"b": b"2"}
            assert await directory.put("b", b"3", ttl=600)
            assert (await _next(snapshots)).members == {"b": b"3"}

    async def test_a_slow_watcher_skips_to_the_newest(self, backend: Backend) -> None:
        """``watch``: "A slow reader skips to the newest."."""
        directory = backend.directory("users")
        async with directory.watch(interval=self.life(1)) as snapshots:
            await _next(snapshots)
            for number in range(50):
                await directory.put("a", b"%d" % number, ttl=600)
            assert await _next(snapshots) == await directory.snapshot()

    async def test_a_watcher_notices_an_expiry(self, backend: Backend) -> None:
        """``watch``: "an expired member is noticed at most that late"."""
        directory = backend.directory("users")
        async with directory.watch(interval=self.life(1)) as snapshots:
            await _next(snapshots)
            await directory.put("a", b"1", ttl=self.life(1))
            assert (await _next(snapshots)).members == {"a": b"1"}
            assert (await _next(snapshots)).members == {}

    async def test_a_watch_tells_how_long_ago_it_looked(self, backend: Backend) -> None:
        """``Watching.confirmed``: "It grows while somebody waits for the next snapshot"."""
        directory = backend.directory("users")
        async with directory.watch(interval=self.life(0.2)) as snapshots:
            assert snapshots.confirmed == -math.inf
            begun = monotonic()
            await _next(snapshots)
            first = snapshots.confirmed
            assert begun <= first <= monotonic()
            with move_on_after(self.life(1)):
                await anext(snapshots)
            assert first < snapshots.confirmed <= monotonic()

    async def test_many_watchers(self, backend: Backend) -> None:
        """Every watcher sees the change, and one that ends disturbs no other."""
        directory = backend.directory("users")
        async with directory.watch(interval=600) as first, directory.watch(interval=600) as second:
            async with directory.watch(interval=600) as third:
                for each in (first, second, third):
                    await _next(each)
            await directory.put("a", b"1", ttl=600)
            assert await _next(first) == await _next(second) == await directory.snapshot()

    async def test_bad_input_is_refused(self, backend: Backend) -> None:
        """Members are text of 1 to 1,024 bytes, data are bytes, lives are above 0."""
        directory = backend.directory("users")
        for bad in ("", "x" * 1025):
            await refusal(directory.put(bad, b"", ttl=1), (ValueError,), "member")
            await refusal(directory.remove(bad), (ValueError,), "member")
        await refusal(directory.put(cast("str", 7), b"", ttl=1), (TypeError,), "member")
        await refusal(directory.put("a", cast("bytes", "text"), ttl=1), (TypeError,), "data")
        for ttl in (0, -1, float("nan")):
            await refusal(directory.put("a", b"", ttl=ttl), (ValueError,), "ttl")
        for interval in (0, -1, float("nan")):
            await refusal(_enter(directory, interval), (ValueError,), "interval")
        for fence in (-1, 2**53 + 1):
            await refusal(directory.put("a", b"", ttl=1, fence=fence), (ValueError,), "fence")
            await refusal(directory.remove("a", fence=fence), (ValueError,), "fence")
        assert (await directory.snapshot()).members == {}


async def _next(snapshots: AsyncIterator[Members]) -> Members:
    with fail_after(PATIENCE):
        return await anext(snapshots)


async def _enter(directory: Directory, interval: float) -> None:
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(directory.watch(interval=interval))
