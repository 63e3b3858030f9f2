"""Stores of records: one suite over memory, SQLite and PostgreSQL."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import anyio
import pytest

from aiopatterns.core.errors import CodecError
from aiopatterns.data import syncstore
from aiopatterns.data.clock import Stamp
from aiopatterns.data.conflict import LastWriteWins, Manual
from aiopatterns.data.memorystore import MemorySyncStore
from aiopatterns.data.merge import Merge, three_way
from aiopatterns.data.record import BUCKETS, packed, unpacked
from aiopatterns.data.vector import VersionVector
from tests.data.recordplaces import PLACES, a_moment, foreign, keys_of, made, move, take, taken

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiopatterns.data.draft import Draft, Held


@pytest.fixture(params=PLACES)
async def store(request, tmp_path) -> AsyncIterator[Any]:
    async with made(request.param, request, tmp_path) as found:
        yield found


@pytest.fixture(params=PLACES)
async def two(request, tmp_path) -> AsyncIterator[Any]:
    async with (
        made(request.param, request, tmp_path, "a") as left,
        made(request.param, request, tmp_path, "b") as right,
    ):
        yield left, right


# ---------------------------------------------------------------------- for the application


async def test_what_is_put_is_read_again(store):
    assert await store.get("k") is None
    value = {"text": "milk", "tags": [1, 2.5, None, True], "raw": b"\0"}
    written = await store.put("k", value)
    found = await store.get("k")
    assert found == written
    assert found.value == value
    assert found.origin == "a"
    second = await store.put("k", "other")
    assert (await store.get("k")) == second
    assert second.vector.relation(written.vector) == "after"
    assert second.created == written.created
    assert second.stamp > written.stamp


async def test_a_deleted_record_is_gone_and_leaves_a_tombstone(store):
    assert await store.delete("k") is None
    await store.put("k", 1)
    tombstone = await store.delete("k")
    assert tombstone.deleted
    assert await store.get("k") is None
    assert await store.delete("k") is None
    assert await keys_of(store) == []
    assert await keys_of(store, tombstones=True) == ["k"]
    again = await store.put("k", 2)
    assert again.vector.dominates(tombstone.vector)
    assert await keys_of(store) == ["k"]


async def test_records_are_in_the_order_of_code_points(store):
    keys = ["b", "B", "ä", "a b", "\U0001f600", "\uffff", "a"]
    for key in keys:
        await store.put(key, key)
    assert await keys_of(store) == sorted(keys)


async def test_records_are_read_in_pages(store, monkeypatch):
    monkeypatch.setattr(syncstore, "PAGE", 3)
    for number in range(8):
        await store.put(f"{number}", number)
    await store.delete("4")
    assert [each.value async for each in store.records()] == [0, 1, 2, 3, 5, 6, 7]


async def test_a_record_that_goes_while_all_are_read_is_left_out(store, monkeypatch):
    for key in "abc":
        await store.put(key, key)
    await store.delete("b")
    fetch = type(store).fetch

    async def fetched(self: Any, keys: Any) -> Any:
        await store.purge()
        return await fetch(self, keys)

    monkeypatch.setattr(type(store), "fetch", fetched)
    assert await keys_of(store, tombstones=True) == ["a", "c"]


async def test_what_is_no_key_or_no_value_is_refused(store):
    unfit: Any = 7
    with pytest.raises(TypeError, match="key"):
        await store.put(unfit, 1)
    for key in ("", "x" * 501, "a\0b", "\ud800"):
        with pytest.raises(ValueError, match="key must"):
            await store.put(key, 1)
    with pytest.raises(CodecError, match="cannot keep the value of 'k'"):
        await store.put("k", object())
    with pytest.raises(CodecError):
        await store.put("k", 2**70)
    assert (await store.state()).seq == 0
    with pytest.raises(ValueError, match="older_than"):
        await store.purge(older_than=-1)
    assert await store.get("x" * 500) is None


async def test_many_are_written_page_by_page(store, monkeypatch):
    monkeypatch.setattr(syncstore, "PAGE", 3)
    await store.put_many({})
    await store.put_many({f"{number}": number for number in range(7)})
    assert [each.value async for each in store.records()] == list(range(7))
    assert store.writes == 3
    with pytest.raises(ValueError, match="key must"):
        await store.put_many({"new": 1, "": 2})
    with pytest.raises(CodecError, match="'bad'"):
        await store.put_many({"a": 1, "b": 2, "c": 3, "d": 4, "bad": object()})
    assert (await keys_of(store))[7:] == ["a", "b", "c"]
    unfit: Any = [("a", 1)]
    with pytest.raises(TypeError, match="values must be a mapping"):
        await store.put_many(unfit)


async def test_conflicts_stay_until_somebody_writes(store):
    await store.put("k", "ours")
    found = await taken(store, foreign("k", "theirs"), strategy=Manual())
    assert len(found.conflicts) == 1
    assert (found.conflicts[0].left.value, found.conflicts[0].right.value) == ("ours", "theirs")
    (leaves,) = [each async for each in store.conflicts()]
    assert {each.value for each in leaves} == {"ours", "theirs"}
    assert (await store.get("k")) == leaves[0]
    solved = await store.put("k", "both")
    assert all(solved.vector.dominates(each.vector) for each in leaves)
    assert [each async for each in store.conflicts()] == []


async def test_a_delete_ends_a_conflict_of_a_value_with_a_tombstone(store):
    await store.put("k", "ours")
    await take(store, foreign("k", None, deleted=True), strategy=Manual())
    assert (await store.get("k")).value == "ours"  # what is not deleted is shown
    assert (await store.delete("k")).deleted
    assert [each async for each in store.conflicts()] == []


async def test_many_write_at_once_and_nothing_is_lost(store):
    async def write(number: int) -> None:
        await store.put(f"{number % 5}", number)

    async with anyio.create_task_group() as group:
        for number in range(20):
            group.start_soon(write, number)
    state = await store.state()
    assert state.seq == 20
    heads = await store.changes(0, 100)
    assert len(heads) == 5
    assert all(head.vectors[0][state.node] == head.seq for head in heads)


# --------------------------------------------------------------------------- the change log


async def test_the_log_has_each_record_once_at_its_latest_place(store):
    for key in ("a", "b", "a", "c"):
        await store.put(key, key)
    await store.delete("b")
    await store.put("d", 1)
    assert [(each.key, each.seq) for each in await store.changes(0, 10)] == [
        ("a", 3),
        ("c", 4),
        ("b", 5),
        ("d", 6),
    ]
    assert [each.key for each in await store.changes(4, 1)] == ["b"]
    assert await store.changes(6, 10) == []


async def test_a_log_that_was_written_often_stays_small(monkeypatch):
    monkeypatch.setattr("aiopatterns.data.memorystore.PAGE", 4)
    store = MemorySyncStore("a")
    for number in range(50):
        await store.put(f"{number % 3}", number)
    assert [each.seq for each in await store.changes(0, 10)] == [48, 49, 50]
    assert len(store) == 3


async def test_heads_say_what_is_known_of_a_record(store):
    written = await store.put("k", 1)
    heads = await store.heads(["k", "x"])
    assert list(heads) == ["k"]
    assert heads["k"].vectors == (written.vector,)
    assert (await store.fetch(["k"]))["k"].head() == heads["k"]
    assert dict(await store.heads([])) == {}


async def test_scans_go_through_all_or_through_a_bucket(store):
    for number in range(40):
        await store.put(f"{number:02}", number)
    first = await store.scan(None, "", 30)
    assert [each.key for each in first] == [f"{number:02}" for number in range(30)]
    assert len(await store.scan(None, first[-1].key, 30)) == 10
    buckets = await store.digests()
    assert all(0 <= bucket < BUCKETS for bucket in buckets)
    found = [head.key for bucket in buckets for head in await store.scan(bucket, "", 40)]
    assert sorted(found) == [f"{number:02}" for number in range(40)]


async def test_digests_are_equal_when_records_are_however_they_came(two):
    left, right = two
    for number in range(5):
        await left.put(f"{number}", number)
    for number in reversed(range(5)):
        rows = await left.fetch([f"{number}"])
        await take(right, *(unpacked(row) for row in rows.values()))
    assert dict(await left.digests()) == dict(await right.digests())
    await right.put("3", "other")
    digests, others = await left.digests(), await right.digests()
    assert [bucket for bucket in digests if digests[bucket] != others[bucket]] == [
        (await left.fetch(["3"]))["3"].bucket
    ]
    assert dict(await MemorySyncStore("z").digests()) == {}


async def test_notes_are_kept_with_what_is_written(store):
    assert await store.load("sync") is None

    def plan(draft: Draft) -> None:
        draft.put("k", 1)
        draft.notes["sync"] = b"\0\xff"

    await store.transact(("k",), plan)
    assert await store.load("sync") == b"\0\xff"


# ------------------------------------------------------------------------------ transactions


async def test_a_plan_that_fails_or_is_only_tried_writes_nothing(store):
    def plan(draft: Draft) -> int:
        draft.put("k", 1)
        draft.notes["sync"] = b"x"
        draft.hold(packed(foreign("h", 1)), peer="z", reason="?")
        return draft.state.seq

    def failing(draft: Draft) -> None:
        plan(draft)
        raise LookupError("no")

    before = await store.state()
    with pytest.raises(LookupError):
        await store.transact(("k", "h"), failing)
    assert await store.transact(("k", "h"), plan, dry_run=True) == 1
    assert await store.state() == before
    assert await store.get("k") is None
    assert await store.load("sync") is None
    assert await store.held("", 10) == []
    assert store.writes == 0
    await store.put("k", 2)
    assert (await store.state()).seq == 1


async def test_who_waits_for_a_change_is_told(store):
    seen, told = store.writes, []

    async def wait() -> None:
        told.append(await store.written(seen))

    async with anyio.create_task_group() as group:
        group.start_soon(wait)
        await store.transact((), lambda draft: draft.passed("z", 0))  # changes no record
        await a_moment()
        assert told == []
        await store.put("k", 1)
    assert told == [seen + 1]
    assert await store.written(seen) == seen + 1


async def test_an_epoch_is_kept_and_is_not_that_of_another_store(two):
    left, right = two
    state = await left.state()
    assert state.name == "a"
    assert state.node == f"a:{state.epoch}"
    assert state.epoch != (await right.state()).epoch
    await left.put("k", 1)
    assert (await left.state()).epoch == state.epoch
    assert "a" in repr(left)


# ------------------------------------------------------------------------------ what comes in


async def test_what_has_come_is_taken_once(two):
    left, right = two
    await left.put("k", 1)
    (found,) = await move(left, right, strategy=LastWriteWins())
    assert found is not None
    assert found.conflicts == ()
    assert await right.get("k") == await left.get("k")
    assert await move(left, right, strategy=LastWriteWins()) == [None]
    assert await move(right, left, strategy=LastWriteWins()) == [None]  # no echo
    assert (await left.state()).seq == 1


async def test_a_merge_starts_from_the_last_version_that_both_had(two):
    left, right = two
    strategy = Merge(three_way)
    await left.put("k", {"x": 1, "y": 1, "z": 1})
    await move(left, right, strategy=strategy)
    await left.put("k", {"x": 2, "y": 1, "z": 1})
    await left.put("k", {"x": 2, "y": 1})  # right has not seen the one before
    await right.put("k", {"x": 1, "y": 3, "z": 1})
    (found,) = await move(left, right, strategy=strategy)
    assert found is not None
    assert len(found.conflicts) == 1
    await move(right, left, strategy=strategy)
    for each in two:
        assert (await each.get("k")).value == {"x": 2, "y": 3}
    assert dict(await left.digests()) == dict(await right.digests())
    await left.put("k", {"x": 2, "y": 4})  # on top of what was merged, and is here alone
    await move(left, right, strategy=strategy)
    assert (await right.get("k")).value == {"x": 2, "y": 4}


async def test_a_stamp_that_is_too_far_ahead_changes_nothing(store):
    await store.put("k", 1)
    with pytest.raises(ValueError, match="at most 60 s ahead"):
        await take(store, foreign("k", 2, ahead=100))
    assert (await store.get("k")).value == 1


async def test_quarantine_keeps_what_came_until_it_is_taken(store):
    row = packed(foreign("k", {"a": b"\0"}, 7))

    def hold(draft: Draft) -> Held:
        return draft.hold(row, peer="z", reason="bad \0 \ud800" + "x" * 2_000)

    held = await store.transact(("k",), hold)
    assert (await store.state()).held == 1
    assert [each async for each in store.quarantined()] == [held]
    assert held.row == row
    assert len(held.reason) <= 1_000
    assert await store.transact(("k",), lambda draft: draft.held["k"]) == held
    await store.transact(("k",), hold)
    assert (await store.state()).held == 1
    await take(store, unpacked(row))
    assert (await store.state()).held == 0
    assert (await store.get("k")).value == {"a": b"\0"}
    await store.transact(("k",), hold)
    assert await take(store, unpacked(row)) == [None]
    assert (await store.state()).held == 0
    assert [each async for each in store.quarantined()] == []


async def test_quarantine_is_read_in_pages(store):
    def hold(draft: Draft) -> None:
        for key in ("c", "a", "b"):
            draft.hold(packed(foreign(key, 1)), peer="z", reason="?")

    await store.transact(("a", "b", "c"), hold)
    assert [each.key for each in await store.held("", 2)] == ["a", "b"]
    assert [each.key for each in await store.held("b", 2)] == ["c"]


# ------------------------------------------------------------------------------------- purge


@pytest.mark.promise("data-tombstones")
async def test_tombstones_stay_until_all_peers_have_them(store):
    for key in "abc":
        await store.put(key, key)
        await store.delete(key)
    seq = (await store.state()).seq
    await store.transact((), lambda draft: draft.passed("one", seq))
    await store.transact((), lambda draft: draft.passed("two", seq - 2))
    assert await store.purge() == 2
    assert await keys_of(store, tombstones=True) == ["c"]
    assert await store.forget("two")
    assert not await store.forget("two")
    assert await store.purge() == 1
    assert await store.purge() == 0
    state = await store.state()
    assert state.horizon == seq
    assert state.expired(seq - 1)
    assert not state.expired(seq)
    assert state.expired(seq + 1)


async def test_tombstones_stay_until_they_are_old_enough(store):
    await store.put("k", 1)
    await store.delete("k")
    assert await store.purge(older_than=60) == 0
    await a_moment()
    assert await store.purge(older_than=0.001) == 1


async def test_many_tombstones_are_purged_in_pages(store, monkeypatch):
    monkeypatch.setattr(syncstore, "PAGE", 2)
    for module in ("memorystore", "sqlstore"):
        monkeypatch.setattr(f"aiopatterns.data.{module}.PAGE", 2)
    for number in range(5):
        await store.put(f"{number}", 1)
        await store.delete(f"{number}")
    await store.put("kept", 1)
    assert await store.purge() == 5
    assert await keys_of(store, tombstones=True) == ["kept"]


async def test_a_tombstone_that_becomes_a_record_while_it_is_looked_at_is_not_purged(store):
    await store.put("k", 1)
    await store.delete("k")
    look = store._tombstones

    async def looked(*places: Any) -> Any:
        found = await look(*places)
        if found:
            await store.put("k", 2)
        return found

    cls = type(store)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cls, "_tombstones", lambda _, *places: looked(*places))
        assert await store.purge() == 0
    assert (await store.get("k")).value == 2


async def test_what_was_purged_is_remembered_as_seen(store):
    await store.put("k", 1)
    old = unpacked((await store.fetch(["k"]))["k"])
    await store.delete("k")
    await store.purge()
    state = await store.state()
    assert state.forgot(old.vectors)
    assert not state.forgot([VersionVector({"z:0": 1})])
    again = await store.put("k", 2)
    assert again.vector.dominates(old.vectors[0])  # so nobody brings the old one back


async def test_a_tombstone_stays_until_all_before_it_was_seen(store):
    await take(store, foreign("k", None, 5, deleted=True), foreign("l", None, 9, deleted=True))
    await store.transact((), lambda draft: draft.saw(VersionVector({"z:0": 6})))
    await a_moment()
    assert await store.purge() == 1
    assert await keys_of(store, tombstones=True) == ["l"]
    state = await store.state()
    assert state.forgot([VersionVector({"z:0": 5})])
    assert not state.forgot([VersionVector({"z:0": 9})])
    await store.transact((), lambda draft: draft.saw(VersionVector({"z:0": 9})))
    assert await store.purge() == 1


async def test_a_new_record_does_not_replace_what_is_in_quarantine(store):
    await take(store, foreign("gone", None, 9, deleted=True))
    await store.transact((), lambda draft: draft.saw(VersionVector({"z:0": 9})))
    await a_moment()
    await store.purge()
    held = foreign("k", "held", 5)
    await store.transact(("k",), lambda draft: draft.hold(packed(held), peer="z", reason="?"))
    await store.put("k", "ours")
    found = await taken(store, held, strategy=Manual())
    assert {each.value for each in found.leaves} == {"held", "ours"}
    fresh = await store.put("other", 1)
    assert fresh.vector["z:0"] == 9


async def test_stamps_are_later_than_those_of_a_clock_that_is_ahead(store):
    await take(store, foreign("k", 1, ahead=30))
    assert isinstance((await store.get("k")).stamp, Stamp)
    theirs = (await store.get("k")).stamp
    assert (await store.put("k", 2)).stamp > theirs
