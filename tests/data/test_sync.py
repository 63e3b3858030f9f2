"""Synchronizer: what was written apart comes together."""

from __future__ import annotations

from typing import Any

import pytest

from aiopatterns.core.errors import BackendUnavailableError, ConflictError
from aiopatterns.data import FirstWriteWins, LastWriteWins, Manual, Merge, three_way
from aiopatterns.data.memorystore import MemorySyncStore
from aiopatterns.data.sync import Synchronizer, SyncProgress, SyncReport
from tests.data.recordplaces import PLACES, made
from tests.data.syncplaces import Frail, assert_at_rest, assert_equal, filled, leaves, values

LAST = LastWriteWins()


async def test_each_gets_what_it_lacks():
    left, right = await filled("left", a=1, b=2), await filled("right", c=3)
    report = await Synchronizer(left, right, strategy=LAST).run()
    assert report == SyncReport(pushed=2, pulled=1)
    assert await values(left) == await values(right) == {"a": 1, "b": 2, "c": 3}
    await assert_at_rest(left, right, LAST)


@pytest.mark.promise("data-sync-no-echo")
async def test_nothing_echoes():
    left, right = await filled("left", a=1, b=2), await filled("right", c=3)
    await Synchronizer(left, right, strategy=LAST).run()
    assert (await left.state()).seq == 3  # two of its own, and one that came
    assert (await right.state()).seq == 3
    await left.put("a", 10)
    assert await Synchronizer(left, right, strategy=LAST).run() == SyncReport(pushed=1)
    assert (await left.state()).seq == 4


async def test_one_way():
    left, right = await filled("left", a=1), await filled("right", c=3)
    sync = Synchronizer(left, right, strategy=LAST)
    assert await sync.run("push") == SyncReport(pushed=1)
    assert await values(left) == {"a": 1}
    assert await values(right) == {"a": 1, "c": 3}
    assert await sync.run("pull") == SyncReport(pulled=1)
    await assert_at_rest(left, right, LAST)


async def test_only_changes_travel():
    left, right = MemorySyncStore("left"), MemorySyncStore("right")
    for number in range(120):
        await left.put(f"k{number:03}", number)
    sync = Synchronizer(left, right, strategy=LAST, batch=50)
    assert (await sync.run()).pushed == 120
    await left.put("k007", -7)
    await right.delete("k008")
    assert await sync.run() == SyncReport(pushed=1, pulled=1)
    await assert_at_rest(left, right, LAST)
    assert "k008" not in await values(left)


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [
        (LAST, {"name": "Ann", "city": "Oslo"}),
        (FirstWriteWins(), {"name": "Ann", "city": "Oslo"}),
        (Merge(three_way), {"name": "Anna", "city": "Oslo"}),
    ],
    ids=["last", "first", "merge"],
)
async def test_concurrent_edits_are_told_and_decided_alike(strategy, expected):
    left = await filled("left", user={"name": "Ann", "city": "Rome"})
    right = MemorySyncStore("right")
    sync = Synchronizer(left, right, strategy=strategy)
    await sync.run()
    await left.put("user", {"name": "Anna", "city": "Rome"})
    await right.put("user", {"name": "Ann", "city": "Oslo"})
    report = await sync.run()
    assert [each.key for each in report.conflicts] == ["user"]
    assert (report.pushed, report.pulled) == (1, 1)
    assert await values(left) == {"user": expected}
    await assert_at_rest(left, right, strategy)


async def test_a_conflict_waits_on_both_sides_until_somebody_decides():
    left, right = await filled("left", k=1), await filled("right", k=2)
    sync = Synchronizer(left, right, strategy=Manual())
    report = await sync.run()
    assert {each.key for each in report.conflicts} == {"k"}
    for store in (left, right):
        (waiting,) = [each async for each in store.conflicts()]
        assert [each.value for each in waiting] == [2, 1]
    await left.put("k", 3)
    assert await sync.run() == SyncReport(pushed=1)
    await assert_at_rest(left, right, Manual())
    assert await values(right) == {"k": 3}


async def test_a_merge_that_finds_nothing_leaves_the_conflict():
    def refuse(*_: Any) -> Any:
        raise ConflictError("no")

    strategy = Merge(refuse)
    left, right = await filled("left", k=1), await filled("right", k=2)
    await Synchronizer(left, right, strategy=strategy).run()
    assert len((await leaves(left))["k"]) == 2
    await assert_at_rest(left, right, strategy)


async def test_a_deletion_travels_and_an_edit_outlives_one_that_did_not_know_of_it():
    strategy = Merge(three_way)
    left, right = await filled("left", a=1, b=2), MemorySyncStore("right")
    sync = Synchronizer(left, right, strategy=strategy)
    await sync.run()
    await left.delete("a")
    await left.delete("b")
    await right.put("b", 3)
    report = await sync.run()
    assert [each.key for each in report.conflicts] == ["b"]
    assert await values(left) == await values(right) == {"b": 3}
    await assert_at_rest(left, right, strategy)


@pytest.mark.promise("data-sync-dry-run")
async def test_a_dry_run_writes_nothing_and_says_what_would_come_over():
    left, right = await filled("left", a=1, b=2), await filled("right", c=3, b=4)
    before = [(await each.state(), await leaves(each)) for each in (left, right)]
    sync = Synchronizer(left, right, strategy=LAST, batch=1)
    report = await sync.run(dry_run=True)
    assert (report.pushed, report.pulled) == (2, 2)
    assert {each.key for each in report.conflicts} == {"b"}
    assert [(await each.state(), await leaves(each)) for each in (left, right)] == before
    assert (await sync.run()).pulled == 2
    await assert_at_rest(left, right, LAST)


async def test_progress_is_told_after_each_batch():
    told: list[SyncProgress] = []
    left, right = await filled("left", **{f"k{n}": n for n in range(5)}), await filled("right", z=1)
    sync = Synchronizer(left, right, strategy=LAST, batch=2, progress=told.append)
    await sync.run("push")
    assert [(each.pushed, each.left) for each in told] == [(2, 3), (4, 1), (5, 0)]
    assert {each.direction for each in told} == {"push"}
    await sync.run("pull")
    assert told[-1] == SyncProgress("pull", pushed=0, pulled=1, left=0)


async def test_an_error_of_progress_comes_through_and_the_next_run_goes_on():
    def fail(_: SyncProgress) -> None:
        raise RuntimeError("no screen")

    left, right = await filled("left", a=1, b=2), MemorySyncStore("right")
    with pytest.raises(RuntimeError, match="no screen"):
        await Synchronizer(left, right, strategy=LAST, batch=1, progress=fail).run()
    assert len(await values(right)) == 1
    assert (await Synchronizer(left, right, strategy=LAST).run()).pushed == 1
    await assert_at_rest(left, right, LAST)


async def test_a_store_that_is_away_is_an_error_and_nothing_is_lost():
    def away() -> None:
        raise BackendUnavailableError("away")

    left, right = await filled("left", a=1), await filled("right", b=1)
    with pytest.raises(BackendUnavailableError):
        await Synchronizer(left, Frail(right, away), strategy=LAST).run()
    await Synchronizer(left, right, strategy=LAST).run()
    await assert_equal(left, right)


@pytest.mark.parametrize("kind", PLACES)
async def test_all_of_it_with_a_store_in_every_place(kind, request, tmp_path):
    def refuse(*_: Any) -> Any:
        raise RuntimeError("no")

    left = await filled("left", a=1, b=2, c=3)
    async with made(kind, request, tmp_path, "right") as right:
        sync = Synchronizer(left, right, strategy=LAST, batch=2)
        await right.put("d", 4)
        assert await sync.run(dry_run=True) == await sync.run() == SyncReport(pushed=3, pulled=1)
        await right.delete("a")
        await left.put("b", 20)
        assert await sync.run() == SyncReport(pushed=1, pulled=1)
        await assert_at_rest(left, right, LAST)
        assert await right.purge() == 1
        await left.put("c", "left")
        await right.put("c", "right")
        held = await Synchronizer(left, right, strategy=Merge(refuse)).run("push")
        assert [each.key for each in held.quarantined] == ["c"]
        assert [each.key async for each in right.quarantined()] == ["c"]
        assert {each.key for each in (await sync.run()).conflicts} == {"c"}
        await right.forget("left")
        await right.delete("d")
        await right.purge()  # before the other one has it: all is compared
        await sync.run()
        live = await leaves(left, tombstones=False)
        assert live == await leaves(right, tombstones=False)
        assert live.keys() == {"b", "c"}
        assert await sync.run() == SyncReport()


async def test_three_stores_in_a_row():
    a, b, c = await filled("a", x=1), await filled("b", y=2), await filled("c", z=3)
    one, other = Synchronizer(a, b, strategy=LAST), Synchronizer(b, c, strategy=LAST)
    for _ in range(2):
        await one.run()
        await other.run()
    await one.run()
    await assert_equal(a, b)
    await assert_equal(b, c)
    assert await one.run() == await other.run() == SyncReport()


@pytest.mark.parametrize(
    ("values", "error", "message"),
    [
        ({"left": "phone"}, TypeError, "left must be a SyncStore"),
        ({"right": None}, TypeError, "right must be a SyncStore"),
        ({"right": MemorySyncStore("left")}, ValueError, "right must have another name than left"),
        ({"strategy": LastWriteWins}, TypeError, r"LastWriteWins; write its \(\)"),
        ({"strategy": "last"}, TypeError, "strategy must be a strategy such as"),
        ({"batch": 0}, ValueError, "batch must be a whole number >= 1"),
        ({"batch": "1"}, TypeError, "batch must be a whole number"),
        ({"progress": 1}, TypeError, "progress must be a function"),
    ],
)
def test_what_makes_no_sense_is_refused(values, error, message):
    given = {"left": MemorySyncStore("left"), "right": MemorySyncStore("right"), "strategy": LAST}
    with pytest.raises(error, match=message):
        Synchronizer(**(given | values))


def as_any(value: object) -> Any:
    return value


async def test_a_run_takes_only_what_it_knows():
    sync = Synchronizer(MemorySyncStore("a"), MemorySyncStore("b"), strategy=LAST)
    assert repr(sync) == "Synchronizer('a', 'b')"
    with pytest.raises(ValueError, match="direction must be one of 'both', 'push', 'pull'"):
        await sync.run(as_any("up"))
    with pytest.raises(TypeError, match="dry_run must be a bool"):
        await sync.run(dry_run=as_any(1))
    with pytest.raises(ValueError, match="direction must be one of"):
        sync.watch(as_any("up"))
    with pytest.raises(ValueError, match="interval must be a finite number > 0"):
        sync.watch(interval=0)
