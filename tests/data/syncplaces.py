"""Stores that fail, and what two stores must have in common in the end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

from aiopatterns.data.memorystore import MemorySyncStore
from aiopatterns.data.record import unpacked
from aiopatterns.data.sync import Synchronizer, SyncReport
from aiopatterns.data.syncstore import SyncStore

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence

    from aiopatterns.data import Versioned
    from aiopatterns.data.conflict import Strategy
    from aiopatterns.data.draft import Draft, Held, State
    from aiopatterns.data.record import Head, Row

T = TypeVar("T")


class Frail(SyncStore):
    """A store whose calls may fail before they have any effect, and after it: the answer is lost."""

    def __init__(self, inner: SyncStore, fault: Callable[[], object]) -> None:
        super().__init__(inner.name)
        self.inner = inner
        self.fault = fault

    async def _call(self, call: Callable[[], Awaitable[T]]) -> T:
        self.fault()
        answer = await call()
        self.fault()
        return answer

    async def state(self) -> State:
        return await self._call(self.inner.state)

    async def changes(self, since: int, limit: int) -> Sequence[Head]:
        return await self._call(lambda: self.inner.changes(since, limit))

    async def scan(self, bucket: int | None, after: str, limit: int) -> Sequence[Head]:
        return await self._call(lambda: self.inner.scan(bucket, after, limit))

    async def digests(self) -> Mapping[int, int]:
        return await self._call(self.inner.digests)

    async def heads(self, keys: Collection[str]) -> Mapping[str, Head]:
        return await self._call(lambda: self.inner.heads(keys))

    async def fetch(self, keys: Collection[str]) -> Mapping[str, Row]:
        return await self._call(lambda: self.inner.fetch(keys))

    async def held(self, after: str, limit: int) -> Sequence[Held]:
        return await self._call(lambda: self.inner.held(after, limit))

    async def load(self, name: str) -> bytes | None:
        return await self._call(lambda: self.inner.load(name))

    async def transact(
        self, keys: Collection[str], plan: Callable[[Draft], T], *, dry_run: bool = False
    ) -> T:
        return await self._call(lambda: self.inner.transact(keys, plan, dry_run=dry_run))

    async def _tombstones(self, before: float, since: int, passed: int) -> Sequence[Head]:
        return await self._call(lambda: self.inner._tombstones(before, since, passed))


async def leaves(store: SyncStore, *, tombstones: bool = True) -> dict[str, tuple[Versioned, ...]]:
    """Return all that a store has, every version of it."""
    heads = await store.scan(None, "", 100_000)
    rows = await store.fetch([each.key for each in heads])
    return {key: unpacked(row).leaves for key, row in rows.items() if tombstones or not row.deleted}


async def values(store: SyncStore) -> dict[str, Any]:
    """Return what readers see."""
    return {each.key: each.value async for each in store.records()}


async def assert_equal(left: SyncStore, right: SyncStore) -> None:
    """Assert that two stores have the same, in the same versions."""
    assert await leaves(left) == await leaves(right)


async def assert_at_rest(left: SyncStore, right: SyncStore, strategy: Strategy) -> None:
    """Assert that two stores are equal, and that runs find nothing to do.

    The first may still note that what was sent has come back as known; the next one writes nothing.
    """
    await assert_equal(left, right)
    sync, stores = Synchronizer(left, right, strategy=strategy), (left, right)
    before = [(await each.state()).seq for each in stores]
    assert quiet(await sync.run())
    noted = [await each.state() for each in stores]
    assert quiet(await sync.run())
    assert [await each.state() for each in stores] == noted
    assert [each.seq for each in noted] == before


def quiet(report: SyncReport) -> bool:
    """Whether a run has found nothing to do."""
    return (report.pushed, report.pulled, report.conflicts) == (0, 0, ())


async def filled(name: str, **records: Any) -> MemorySyncStore:
    """Return a store with records."""
    store = MemorySyncStore(name)
    for key, value in records.items():
        await store.put(key, value)
    return store
