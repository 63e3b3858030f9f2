"""What becomes of a batch: taken, known, gone for good, or in quarantine."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from aiopatterns.core import clock
from aiopatterns.data import LastWriteWins, Manual, Merge, Stamp
from aiopatterns.data.draft import Held
from aiopatterns.data.memorystore import MemorySyncStore
from aiopatterns.data.record import Record, Row, packed, unpacked
from aiopatterns.data.syncplan import Outcome, bury, receive, retry
from tests.data.histories import version
from tests.data.syncplaces import filled, leaves, values

if TYPE_CHECKING:
    from aiopatterns.data import Strategy, Versioned
    from aiopatterns.data.syncstore import SyncStore

LAST = LastWriteWins()


def row(*versions: Versioned) -> Row:
    return packed(Record(versions[0].key, 1, versions, {}, False, 0.0))


def damaged(key: str = "k") -> Row:
    return row(version(1, key=key))._replace(body=b"\xff")


async def received(
    store: SyncStore, *rows: Row, peer: str = "peer", strategy: Strategy = LAST
) -> Outcome:
    return await store.transact(
        [each.key for each in rows],
        lambda draft: receive(draft, rows, peer=peer, strategy=strategy),
    )


async def held(store: SyncStore) -> list[Held]:
    return [each async for each in store.quarantined()]


async def retried(store: SyncStore, strategy: Strategy = LAST) -> Outcome:
    waiting = await held(store)
    keys = [each.key for each in waiting]
    return await store.transact(keys, lambda draft: retry(draft, waiting, strategy=strategy))


def refuse(*_: Any) -> Any:
    raise RuntimeError("cannot merge")


async def test_what_is_known_changes_nothing():
    store = MemorySyncStore("s")
    assert (await received(store, row(version(1)))).written == 1
    assert await received(store, row(version(1))) == Outcome()
    assert (await store.state()).seq == 1


@pytest.mark.promise("data-sync-quarantine")
async def test_a_value_that_cannot_be_read_stops_no_other():
    store = MemorySyncStore("s")
    outcome = await received(
        store, row(version(1, key="a")), damaged("b"), row(version(3, key="c"))
    )
    assert outcome.written == 2
    (found,) = outcome.quarantined
    assert (found.key, found.peer) == ("b", "peer")
    assert found.reason.startswith("CodecError: ")
    assert await held(store) == [found]
    assert await values(store) == {"a": 1, "c": 3}


@pytest.mark.promise("data-sync-quarantine")
async def test_a_stamp_from_the_future_waits_until_it_is_none():
    store = MemorySyncStore("s")
    ahead = int(clock.wall() * 1_000) + 3_600_000
    outcome = await received(store, row(version(1, time=ahead)))
    assert "at most 60 s ahead" in outcome.quarantined[0].reason
    assert (await retried(store)).quarantined == outcome.quarantined
    trusting = MemorySyncStore("t", max_drift=7_200)
    assert (await received(trusting, row(version(1, time=ahead)))).written == 1


@pytest.mark.promise("data-sync-quarantine")
async def test_a_merge_that_raises_is_retried():
    store = await filled("s", k=1)
    outcome = await received(store, row(version(2)), strategy=Merge(refuse))
    assert outcome.quarantined[0].reason == "RuntimeError: cannot merge"
    assert await values(store) == {"k": 1}
    again = await retried(store, Merge(refuse))
    assert again.quarantined == outcome.quarantined
    assert await held(store) == list(outcome.quarantined)
    assert (await retried(store)).written == 1
    assert await held(store) == []


async def test_what_has_changed_meanwhile_is_not_retried():
    store = await filled("s", k=1)
    await received(store, row(version(2)), strategy=Merge(refuse))
    waiting = await held(store)
    await store.transact(("k",), lambda draft: draft.release("k"))
    outcome = await store.transact(["k"], lambda draft: retry(draft, waiting, strategy=LAST))
    assert outcome == Outcome()


async def test_what_was_known_in_the_end_leaves_quarantine():
    store = await filled("s", k=1)
    await received(store, row(version(2)), strategy=Merge(refuse))
    waiting = await held(store)
    await received(store, row(version(2)))
    assert await held(store) == []
    outcome = await store.transact(["k"], lambda draft: retry(draft, waiting, strategy=LAST))
    assert outcome == Outcome()


async def test_a_record_that_comes_anew_takes_the_place_of_what_was_held():
    store = MemorySyncStore("s")
    await received(store, damaged())
    outcome = await received(store, row(version(5)))
    assert (outcome.written, outcome.quarantined) == (1, ())
    assert await held(store) == []
    assert await values(store) == {"k": 5}


async def test_what_two_stores_have_sent_is_held_together():
    store = await filled("s", k=0)
    one, other = version(1, node="a"), version(2, node="b", time=2)
    await received(store, row(one), peer="a", strategy=Merge(refuse))
    await received(store, row(other), peer="b", strategy=Merge(refuse))
    (waiting,) = await held(store)
    assert set(unpacked(waiting.row).leaves) == {one, other}
    await received(store, damaged(), peer="c")
    assert unpacked((await held(store))[0].row) == unpacked(waiting.row)
    assert (await retried(store, Manual())).written == 1
    assert {each.value for each in (await leaves(store))["k"]} == {0, 1, 2}


async def test_a_row_that_can_be_read_is_held_in_place_of_one_that_cannot():
    store = await filled("s", k=0)
    await received(store, damaged())
    await received(store, row(version(1)), strategy=Merge(refuse))
    assert unpacked((await held(store))[0].row).leaves == (version(1),)


async def test_what_was_held_is_taken_with_what_comes():
    store = await filled("s", k=0)
    await received(store, row(version(1, node="a")), strategy=Merge(refuse))
    outcome = await received(store, row(version(2, node="b", time=2)), strategy=Manual())
    assert outcome.written == 1
    assert len(outcome.conflicts) == 3
    assert {each.value for each in (await leaves(store))["k"]} == {0, 1, 2}
    assert await held(store) == []


async def test_what_was_held_goes_on_waiting_if_what_comes_is_no_help():
    def not_one(_base: Any, left: Any, right: Any) -> Any:
        if 1 in (left, right):
            raise RuntimeError("not one")
        return max(left, right)

    store = await filled("s", k=0)
    await received(store, row(version(1, node="a")), strategy=Merge(not_one))
    outcome = await received(store, row(version(2, node="b", time=2)), strategy=Merge(not_one))
    assert outcome.written == 1
    assert [each.reason for each in outcome.quarantined] == ["RuntimeError: not one"]
    assert await held(store) == list(outcome.quarantined)
    assert await values(store) == {"k": 2}


async def test_what_was_deleted_and_forgotten_stays_away():
    store = await filled("s", k=1)
    (old,) = (await leaves(store))["k"]
    await store.delete("k")
    await store.purge()
    assert await received(store, row(old)) == Outcome()
    assert await leaves(store) == {}


async def test_a_version_that_was_never_seen_comes_in_also_after_a_purge():
    store = await filled("s", k=1)
    await store.delete("k")
    await store.purge()
    assert (await received(store, row(version(2)))).written == 1
    assert await values(store) == {"k": 2}


async def test_bury_deletes_what_the_other_has_forgotten_and_nothing_else():
    source, target = await filled("source", gone=1, kept=2), MemorySyncStore("target")
    rows = tuple((await source.fetch(["gone", "kept"])).values())
    await received(target, *rows, row(version(3, key="own")))
    await source.delete("gone")
    await source.purge()
    state = await source.state()
    keys = ["gone", "own", "missing"]
    for written in (1, 0):
        outcome = await target.transact(keys, lambda draft: bury(draft, keys, source=state))
        assert outcome == Outcome(written)
    assert await values(target) == {"kept": 2, "own": 3}
    (tombstone,) = (await leaves(target))["gone"]
    (last,) = unpacked(rows[0]).leaves
    assert tombstone.stamp == Stamp(last.stamp.time, last.stamp.counter + 1, "target")
    assert tombstone.created == last.created


@pytest.mark.parametrize("why", ["damaged", "from the future"])
async def test_bury_deletes_what_cannot_be_read_or_understood_as_well(why):
    source, target = MemorySyncStore("source", max_drift=7_200), MemorySyncStore("target")
    await source.put("gone", 1)
    (old,) = (await leaves(source))["gone"]
    await received(target, row(old))
    if why == "damaged":
        target._rows["gone"] = target._rows["gone"]._replace(body=b"\xff")
    else:  # its own clock has been wrong
        ahead = replace(old, stamp=Stamp(old.stamp.time + 3_600_000, 0, "target"))
        target._rows["gone"] = row(ahead)
    await source.delete("gone")
    await source.purge()
    state = await source.state()
    outcome = await target.transact(["gone"], lambda draft: bury(draft, ["gone"], source=state))
    assert outcome == Outcome(1)
    assert await values(target) == {}


async def test_what_was_buried_stays_so_when_a_later_version_comes_from_elsewhere():
    source, target, third = (MemorySyncStore(name) for name in ("source", "target", "third"))
    await source.put("gone", 1)
    await received(target, *(await source.fetch(["gone"])).values())
    await source.put("gone", 2)
    await received(third, *(await source.fetch(["gone"])).values())
    await source.delete("gone")
    await source.purge()
    state = await source.state()
    await target.transact(["gone"], lambda draft: bury(draft, ["gone"], source=state))
    merged = Merge(lambda _base, left, right: left + right)  # with which a live version would stay
    outcome = await received(target, *(await third.fetch(["gone"])).values(), strategy=merged)
    assert outcome == Outcome()
    assert await values(target) == {}
