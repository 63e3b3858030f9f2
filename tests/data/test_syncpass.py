"""A pass: batch by batch, from the checkpoint or by comparison, whatever fails in between."""

from __future__ import annotations

from shutil import copyfile
from typing import TYPE_CHECKING, Any

import pytest

from aiopatterns.core.errors import BackendError
from aiopatterns.data import (
    LastWriteWins,
    Manual,
    Merge,
    SqlSyncStore,
    VersionVector,
    three_way,
)
from aiopatterns.data.checkpoint import History, note_name
from aiopatterns.data.memorystore import MemorySyncStore
from aiopatterns.data.sync import Synchronizer, SyncReport
from aiopatterns.testing import Trial, cancel_everywhere, fail_everywhere
from tests.data.recordplaces import a_moment, foreign, take
from tests.data.syncplaces import Frail, assert_at_rest, assert_equal, filled, leaves, values

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from aiopatterns.data import Strategy
    from aiopatterns.data.syncstore import SyncStore

LAST = LastWriteWins()


async def noted(store: SyncStore, source: str, target: str) -> list[int]:
    history = History.unpack(await store.load(note_name(source, target)))
    return list(history.reached.values())


class Counting:
    """Counts the calls of a store, as what Frail calls."""

    def __init__(self, *, fail_at: int = 0) -> None:
        self.calls = 0
        self.fail_at = fail_at

    def __call__(self) -> None:
        self.calls += 1
        if self.calls == self.fail_at:
            raise BackendError("lost")


# ------------------------------------------------------------------------------- checkpoints


@pytest.mark.promise("data-sync-checkpoints")
async def test_both_sides_note_how_far_it_has_come():
    left, right = await filled("left", a=1, b=2, c=3), MemorySyncStore("right")
    sync = Synchronizer(left, right, strategy=LAST, batch=2)
    await sync.run("push")
    assert await noted(left, "left", "right") == await noted(right, "left", "right") == [3]
    assert (await left.state()).peers == {"right": 3}
    await left.put("d", 4)
    await sync.run("push")
    assert await noted(left, "left", "right") == await noted(right, "left", "right") == [3, 4]


@pytest.mark.promise("data-sync-checkpoints")
@pytest.mark.parametrize(
    ("fail_at", "expected"),
    [
        (19, [[2], [4]]),  # before the second note of the source is written
        (20, [[4], [4]]),  # after it
    ],
)
async def test_a_run_goes_on_from_the_last_batch_that_both_have_noted(fail_at, expected):
    left, right = await filled("left", **{f"k{n}": n for n in range(6)}), MemorySyncStore("right")
    frail = Frail(left, Counting(fail_at=fail_at))
    with pytest.raises(BackendError):
        await Synchronizer(frail, right, strategy=LAST, batch=2).run("push")
    assert [await noted(left, "left", "right"), await noted(right, "left", "right")] == expected
    sync = Synchronizer(left, right, strategy=LAST, batch=2)
    assert (await sync.run("push")).pushed == 6 - expected[1][0]
    await assert_at_rest(left, right, LAST)


@pytest.mark.promise("data-sync-checkpoints")
@pytest.mark.parametrize("side", ["left", "right"])
async def test_a_side_that_was_made_anew_gets_everything_again(side):
    left, right = await filled("left", a=1), await filled("right", b=2)
    await Synchronizer(left, right, strategy=LAST).run()
    new = MemorySyncStore(side)
    left, right = (new, right) if side == "left" else (left, new)
    report = await Synchronizer(left, right, strategy=LAST).run()
    assert report.pushed + report.pulled == 2
    assert await values(new) == {"a": 1, "b": 2}
    await assert_at_rest(left, right, LAST)


@pytest.mark.promise("data-sync-checkpoints")
@pytest.mark.parametrize("side", ["left", "right"])
async def test_a_side_without_its_notes_reads_again_and_writes_nothing(side):
    left, right = await filled("left", a=1, b=2), MemorySyncStore("right")
    await Synchronizer(left, right, strategy=LAST).run()
    (left if side == "left" else right)._notes.clear()
    assert await Synchronizer(left, right, strategy=LAST).run() == SyncReport()
    await assert_at_rest(left, right, LAST)


async def test_what_is_written_during_a_run_comes_with_it_or_with_the_next():
    left, right = await filled("left", **{f"k{n}": n for n in range(4)}), MemorySyncStore("right")
    more = iter(range(100, 200))

    async def write_on() -> None:
        number = next(more)
        await left.put(f"k{number}", number)

    class Busy(Frail):
        async def changes(self, since: int, limit: int) -> Any:
            await write_on()
            await write_on()
            return await self.inner.changes(since, limit)

    busy = Busy(left, lambda: None)
    report = await Synchronizer(busy, right, strategy=LAST, batch=1).run("push")
    assert report.pushed < len(await values(left))  # it ends, though the log grows faster
    await Synchronizer(left, right, strategy=LAST).run("push")
    await assert_equal(left, right)


# -------------------------------------------------------------------------------- comparison


async def parted(**records: Any) -> tuple[MemorySyncStore, MemorySyncStore]:
    """Two stores that were equal, one of which has forgotten that there is the other one."""
    left, right = await filled("left", **records), MemorySyncStore("right")
    await Synchronizer(left, right, strategy=LAST).run()
    await left.forget("right")
    return left, right


@pytest.mark.promise("data-sync-resync")
async def test_what_was_deleted_and_purged_does_not_come_back():
    left, right = await parted(gone=1, kept=2)
    await left.delete("gone")
    assert await left.purge() == 1
    await left.put("new", 3)
    report = await Synchronizer(left, right, strategy=LAST).run()
    assert await values(left) == await values(right) == {"kept": 2, "new": 3}
    assert report.pushed == 2  # a deletion and a new record
    await Synchronizer(left, right, strategy=LAST).run()
    await assert_at_rest(left, right, LAST)


@pytest.mark.promise("data-sync-resync")
async def test_an_edit_outlives_a_deletion_that_was_purged():
    left, right = await parted(k=1)
    await left.delete("k")
    await left.purge()
    await right.put("k", 2)
    await Synchronizer(left, right, strategy=LAST).run()
    assert await values(left) == {"k": 2}
    await Synchronizer(left, right, strategy=LAST).run()
    await assert_at_rest(left, right, LAST)


@pytest.mark.promise("data-sync-resync")
async def test_a_record_that_was_written_anew_after_a_purge_wins():
    left, right = await parted(k=1)
    await left.delete("k")
    await left.purge()
    await left.put("k", 3)
    assert (await Synchronizer(left, right, strategy=LAST).run()).conflicts == ()
    assert await values(right) == {"k": 3}
    await assert_at_rest(left, right, LAST)


@pytest.mark.promise("data-sync-resync")
async def test_a_comparison_moves_only_what_differs():
    many = {f"k{n}": n for n in range(700)}
    left, right = await parted(**many, gone=1)
    await left.delete("gone")
    await left.purge()
    await left.put("k5", -5)
    for number in range(5):  # other groups of keys that differ, for nothing
        await right.put(f"own{number}", number)
    reads = Counting()
    report = await Synchronizer(left, Frail(right, reads), strategy=LAST).run("push")
    assert report.pushed == 2
    for number in range(5):
        await right.delete(f"own{number}")
    assert reads.calls < 60
    assert await values(left) == await values(right)


@pytest.mark.real
@pytest.mark.promise("data-sync-resync")
async def test_a_store_that_was_restored_from_a_backup_gets_back_what_it_had_given(tmp_path):
    right, file, backup = MemorySyncStore("right"), tmp_path / "left.db", tmp_path / "backup.db"
    async with SqlSyncStore(f"sqlite:///{file}", name="left") as left:
        await left.put("a", 1)
        await Synchronizer(left, right, strategy=LAST).run()
    copyfile(file, backup)
    async with SqlSyncStore(f"sqlite:///{file}", name="left") as left:
        await left.put("b", 2)
        await Synchronizer(left, right, strategy=LAST).run()
    copyfile(backup, file)
    async with SqlSyncStore(f"sqlite:///{file}", name="left") as left:
        await left.renew()
        await left.put("c", 3)
        await Synchronizer(left, right, strategy=LAST).run()
        assert await values(left) == await values(right) == {"a": 1, "b": 2, "c": 3}
        await assert_at_rest(left, right, LAST)


async def test_a_known_peer_keeps_tombstones_from_being_purged():
    left, right = await filled("left", a=1), MemorySyncStore("right")
    sync = Synchronizer(left, right, strategy=LAST)
    await sync.run()
    await left.delete("a")
    assert await left.purge() == 0
    await sync.run()
    assert await left.purge() == 1
    assert await sync.run() == SyncReport()
    assert await right.purge() == 1
    assert await leaves(left) == await leaves(right) == {}


async def test_a_peer_is_known_before_its_first_batch():
    left, right = await filled("left", **{f"k{n}": n for n in range(4)}), MemorySyncStore("right")
    frail = Frail(right, Counting(fail_at=6))
    with pytest.raises(BackendError):
        await Synchronizer(left, frail, strategy=LAST, batch=2).run("push")
    assert (await left.state()).peers == {"right": 0}
    await left.delete("k3")
    assert await left.purge() == 0


async def test_nothing_is_noted_as_seen_of_a_store_that_has_something_in_quarantine():
    def refuse(*_: Any) -> Any:
        raise RuntimeError("no")

    left, right = await filled("left", k=1), await filled("right", k=2)
    third = MemorySyncStore("third")
    await Synchronizer(left, right, strategy=Merge(refuse)).run("push")
    await Synchronizer(right, third, strategy=LAST).run("push")
    assert (await third.state()).context == {}
    await Synchronizer(left, right, strategy=LAST).run("push")
    await Synchronizer(right, third, strategy=LAST).run("push")
    assert set((await third.state()).context) >= {(await left.state()).node}


@pytest.mark.promise("data-sync-quarantine")
async def test_what_is_in_quarantine_comes_in_with_the_next_run_that_can_take_it():
    calls: list[int] = []

    def once(_base: Any, left: Any, right: Any) -> Any:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("not yet")
        return max(left, right)

    left, right = await filled("left", k=1, other=3), await filled("right", k=2)
    sync = Synchronizer(left, right, strategy=Merge(once))
    report = await sync.run("pull")
    assert [each.key for each in report.quarantined] == ["k"]
    report = await sync.run()
    assert report.quarantined == ()
    assert await values(left) == await values(right) == {"k": 2, "other": 3}
    await assert_at_rest(left, right, Merge(once))


# ------------------------------------------------------------------- faults at every call

#: What two stores hold before a run that is struck at every place.
LEFT = {"a": 1, "b": {"x": 1}, "c": 3, "d": 4}
RIGHT = {"b": {"y": 2}, "e": 5, "f": 6}


async def prepared(kind: str) -> tuple[MemorySyncStore, MemorySyncStore]:
    """Return two stores that differ; their logs reach back, or do not."""
    left, right = await filled("left", **LEFT), await filled("right", **RIGHT)
    if kind == "compared":
        await Synchronizer(left, right, strategy=Merge(three_way)).run()
        for store, other in ((left, right), (right, left)):
            await store.delete("a" if store is left else "f")
            await store.forget(other.name)
            await store.purge()
            await store.put("new" + store.name, 1)
    return left, right


def ends(left: SyncStore, right: SyncStore, strategy: Strategy) -> Callable[[], Any]:
    """Return what checks, after any accident, that the next runs bring both to the one right end."""

    async def check() -> None:
        sync = Synchronizer(left, right, strategy=strategy, batch=2)
        before = {**await values(left), **await values(right)}
        await sync.run()
        await sync.run()
        await assert_at_rest(left, right, strategy)
        gone = {"a", "f"} if "newleft" in before else set()
        assert (await values(left)).keys() == before.keys() - gone

    return check


@pytest.mark.untraced
@pytest.mark.parametrize("kind", ["followed", "compared"])
@pytest.mark.parametrize("strategy", [Merge(three_way), Manual()], ids=["merge", "manual"])
@pytest.mark.promise("data-sync-fail-everywhere")
def test_a_store_that_fails_at_any_call_loses_nothing(kind, strategy):
    def scenario(fault: Callable[[], object]) -> Trial:
        both: list[SyncStore] = []

        async def work() -> None:
            left, right = await prepared(kind)
            both.extend((left, right))
            await Synchronizer(
                Frail(left, fault), Frail(right, fault), strategy=strategy, batch=2
            ).run()

        async def check() -> None:
            await ends(both[0], both[1], strategy)()

        return Trial(work(), check)

    fail_everywhere(scenario, minimum=60)


@pytest.mark.untraced
@pytest.mark.parametrize("kind", ["followed", "compared"])
@pytest.mark.promise("data-sync-cancel")
def test_a_run_that_is_cancelled_at_any_await_loses_nothing(kind):
    strategy = Merge(three_way)

    def scenario() -> Trial:
        both: list[SyncStore] = []

        async def work() -> None:
            left, right = await prepared(kind)
            both.extend((left, right))
            await Synchronizer(left, right, strategy=strategy, batch=2).run()

        async def check() -> None:
            if len(both) == 2:
                await ends(both[0], both[1], strategy)()

        return Trial(work(), check)

    cancel_everywhere(scenario, kinds=("native",), minimum=30)


@pytest.mark.promise("data-sync-quarantine")
async def test_what_is_in_quarantine_is_not_taken_for_deleted():
    left, right = MemorySyncStore("left"), MemorySyncStore("right", max_drift=10)
    gone, dear = foreign("gone", None, 9, deleted=True), foreign("k", "dear", 5, ahead=30)
    await take(left, gone, dear)
    await left.transact((), lambda draft: draft.saw(VersionVector({"z:0": 9})))
    sync = Synchronizer(left, right, strategy=LAST)
    report = await sync.run()
    assert [each.key for each in report.quarantined] == ["k"]
    await right.forget("left")
    await right.put("other", 1)
    await right.delete("other")
    await a_moment()
    assert await right.purge()  # so that the two have to be compared
    await sync.run()
    assert (await values(left))["k"] == "dear"


class Forgetful(Frail):
    """A store that before one of its calls forgets its peer, and purges what that has not seen."""

    def __init__(self, inner: SyncStore, peer: str, *, at: int) -> None:
        super().__init__(inner, self._count)
        self.peer = peer
        self.left = at

    def _count(self) -> None:
        self.left -= 1

    async def _call(self, call: Callable[[], Awaitable[Any]]) -> Any:
        if self.left in {0, -1}:
            self.left = -2
            await self.inner.forget(self.peer)
            assert await self.inner.purge() <= 1
        return await super()._call(call)


@pytest.mark.parametrize("batch", [1, 3, 9])
@pytest.mark.parametrize("kind", ["followed", "compared"])
async def test_what_is_purged_while_a_run_is_under_way_is_deleted_at_the_other_side(kind, batch):
    for at in range(40):
        left, right = await filled("left", a=1, b=1, c=1, d=1), MemorySyncStore("right")
        await Synchronizer(left, right, strategy=LAST).run()
        if kind == "compared":
            await left.transact((), lambda draft: draft.renew())
        await left.put_many({"a": 2, "b": 2})
        await left.delete("c")
        await left.put("d", 2)
        forgetful = Forgetful(left, "right", at=at)
        await Synchronizer(forgetful, right, strategy=LAST, batch=batch).run("push")
        assert await values(right) == {"a": 2, "b": 2, "d": 2}
        await Synchronizer(left, right, strategy=LAST).run()
        assert await values(left) == await values(right) == {"a": 2, "b": 2, "d": 2}
        assert await Synchronizer(left, right, strategy=LAST).run() == SyncReport()
