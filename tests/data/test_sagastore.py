"""Where sagas are kept: one suite over all stores."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from aiopatterns.core.clock import sleep
from aiopatterns.data.sagajournal import SagaState
from aiopatterns.data.sagastore import Listed, MemorySagaStore
from tests.data.sagaplaces import PLACES, filed, opened

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture(params=PLACES)
async def store(request, tmp_path) -> AsyncIterator[Any]:
    async with opened(request, tmp_path) as found:
        yield found


@pytest.fixture(params=PLACES)
async def forgetful(request, tmp_path) -> AsyncIterator[Any]:
    async with opened(request, tmp_path, keep=0.05) as found:
        yield found


async def test_what_is_filed_is_read_again(store):
    assert await store.read("trip", "1") is None
    assert await store.create(filed(), lease=10)
    assert await store.read("trip", "1") == filed()
    assert await store.read("trip", "2") is None
    assert await store.read("tour", "1") is None


async def test_an_id_is_filed_once_and_its_creator_may_ask_again(store):
    assert await store.create(filed(), lease=10)
    assert await store.create(filed(), lease=10)
    assert not await store.create(filed(owner="b"), lease=10)
    assert await store.read("trip", "1") == filed()


async def test_the_holder_saves(store):
    await store.create(filed(), lease=10)
    second = filed(revision=1, body=b"more", state=SagaState.COMPENSATING)
    assert await store.save(second, lease=10)
    assert await store.read("trip", "1") == second


async def test_a_save_may_be_repeated_and_one_that_is_late_changes_nothing(store):
    await store.create(filed(), lease=10)
    newest = filed(revision=2, body=b"newest")
    assert await store.save(newest, lease=10)
    assert await store.save(newest, lease=10)
    assert await store.save(filed(revision=1, body=b"late"), lease=10)
    assert await store.read("trip", "1") == newest


@pytest.mark.promise("data-saga-fencing")
async def test_who_does_not_hold_it_is_refused(store):
    await store.create(filed(), lease=0)
    taken = await store.claim("trip", "1", owner="b", lease=10)
    assert taken is not None
    assert (taken.owner, taken.fence, taken.revision) == ("b", 2, 1)
    assert not await store.save(filed(revision=5), lease=10)
    assert not await store.save(filed(revision=5, owner="b"), lease=10)
    assert await store.read("trip", "1") == taken


async def test_a_save_of_nothing_is_refused(store):
    assert not await store.save(filed(revision=1), lease=10)


async def test_nobody_takes_what_is_held_or_not_there(store):
    await store.create(filed(), lease=10)
    assert await store.claim("trip", "1", owner="b", lease=10) is None
    assert await store.claim("trip", "2", owner="b", lease=10) is None


async def test_a_lease_runs_out_and_a_save_renews_it(store):
    await store.create(filed(), lease=0.05)
    assert await store.save(filed(revision=1), lease=10)
    await sleep(0.08)
    assert await store.claim("trip", "1", owner="b", lease=10) is None
    await store.create(filed("2"), lease=0.05)
    await sleep(0.08)
    assert await store.claim("trip", "2", owner="b", lease=10) is not None


async def test_a_saga_that_is_given_up_is_taken_at_once_by_one(store):
    await store.create(filed(), lease=10)
    await store.save(filed(revision=1), lease=0)
    assert await store.claim("trip", "1", owner="b", lease=10) is not None
    assert await store.claim("trip", "1", owner="c", lease=10) is None


@pytest.mark.parametrize("state", [SagaState.COMPLETED, SagaState.COMPENSATED])
async def test_what_has_ended_is_never_changed_again(store, state):
    await store.create(filed(), lease=10)
    end = filed(revision=1, state=state)
    assert await store.save(end, lease=0)
    assert await store.save(end, lease=0)
    assert not await store.save(filed(revision=2), lease=10)
    assert await store.claim("trip", "1", owner="b", lease=10) is None
    assert not await store.create(filed(owner="b"), lease=10)
    assert await store.due("trip", "1-x", limit=10) == []
    assert await store.unfinished("trip", limit=10) == []
    assert await store.read("trip", "1") == end


async def test_what_is_stuck_is_taken_but_is_not_due(store):
    await store.create(filed(), lease=10)
    await store.save(filed(revision=1, state=SagaState.STUCK), lease=0)
    assert await store.due("trip", "1-x", limit=10) == []
    assert await store.unfinished("trip", limit=10) == [Listed("1", "1-x", SagaState.STUCK)]
    taken = await store.claim("trip", "1", owner="b", lease=10)
    assert taken is not None
    assert taken.state is SagaState.STUCK


async def test_due_are_those_of_these_steps_that_nobody_holds(store):
    await store.create(filed("held"), lease=10)
    await store.create(filed("left"), lease=0)
    await store.create(filed("undone", state=SagaState.COMPENSATING), lease=0)
    await store.create(filed("older", definition="0-x"), lease=0)
    await store.create(filed("other", saga="tour"), lease=0)
    assert sorted(await store.due("trip", "1-x", limit=10)) == ["left", "undone"]
    assert len(await store.due("trip", "1-x", limit=1)) == 1
    listed = await store.unfinished("trip", limit=10)
    assert sorted(each.id for each in listed) == ["held", "left", "older", "undone"]
    assert len(await store.unfinished("trip", limit=2)) == 2


async def test_what_ended_long_ago_is_forgotten(forgetful):
    store = forgetful
    await store.create(filed(), lease=10)
    await store.save(filed(revision=1, state=SagaState.COMPLETED), lease=0)
    await store.create(filed("2"), lease=10)
    await sleep(0.1)
    await store.purge()
    assert await store.read("trip", "1") is None
    assert await store.read("trip", "2") is not None
    assert await store.create(filed(owner="b"), lease=10)


def test_keep_is_a_time():
    with pytest.raises(ValueError, match="keep"):
        MemorySagaStore(keep=0)


async def test_the_store_in_memory_shows_what_it_has():
    store = MemorySagaStore()
    await store.create(filed(), lease=10)
    await store.create(filed("2"), lease=10)
    await store.save(filed(revision=1, state=SagaState.COMPLETED), lease=0)
    assert repr(store) == "MemorySagaStore(1 open, 1 ended)"
    assert await store.purge() == 0
