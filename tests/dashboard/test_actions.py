from __future__ import annotations

from contextlib import asynccontextmanager

import pytest

from aiopatterns.backends.opening import open_backend
from aiopatterns.backends.queue import NewJob, Settled, Turn
from aiopatterns.dashboard.actions import ACTIONS, Order, act
from aiopatterns.dashboard.queues import Queues


@asynccontextmanager
async def queue(dead=(), queued=(), partitions=1):
    """A queue of the backend with dead letters and jobs, by their ids."""
    async with open_backend("memory://") as backend:
        parts = partitions if partitions > 1 else 0
        (found,) = await Queues(backend).meet({"q": parts})
        for number, store in enumerate(found.stores):
            mine = [each for at, each in enumerate(dead) if at % partitions == number]
            if mine:
                await store.enqueue([NewJob(each, b"") for each in mine])
                turned = await store.step(Turn("w", 1, 15, free=500))
                settled = [Settled(each.id, "dead", b"e") for each in turned.claimed]
                await store.step(Turn("w", 2, 15, settled=settled, leave=True))
        if queued:
            await found.stores[0].enqueue([NewJob(each, b"") for each in queued])
        yield found


async def counted(found):
    counts = await found.counts()
    return sum(each.dead for each in counts), sum(each.queued for each in counts)


async def test_dead_letters_are_queued_again_by_their_ids():
    async with queue(dead="abc") as found:
        assert await act("requeue", Order("q", ["a", "b", "nobody"]), found) == 2
        assert await counted(found) == (1, 2)
        assert await act("requeue", Order("q", ["a"]), found) == 0


@pytest.mark.parametrize("partitions", [1, 3])
async def test_all_of_them_in_all_parts(partitions):
    ids = [f"job-{number}" for number in range(60)]
    async with queue(dead=ids, partitions=partitions) as found:
        assert await act("requeue", Order("q", all=True), found) == 60
        assert await counted(found) == (0, 60)


async def test_more_than_one_step_takes():
    ids = [f"job-{number}" for number in range(1_203)]
    async with open_backend("memory://") as backend:
        (found,) = await Queues(backend, ["q"]).meet({})
        (store,) = found.stores
        for start in range(0, len(ids), 400):
            await store.enqueue([NewJob(each, b"") for each in ids[start : start + 400]])
        number, dead = 1, list[str]()
        while len(dead) < len(ids):
            turned = await store.step(Turn("w", number, 15, free=500))
            settled = [Settled(each.id, "dead", b"") for each in turned.claimed]
            await store.step(Turn("w", number + 1, 15, settled=settled))
            number, dead = number + 2, dead + [each.id for each in turned.claimed]
        assert await act("requeue", Order("q", all=True), found) == len(ids)


async def test_dead_letters_are_removed():
    async with queue(dead="abcd") as found:
        assert await act("purge", Order("q", ["a"]), found) == 1
        assert await act("purge", Order("q", all=True), found) == 3
        assert await counted(found) == (0, 0)


async def test_jobs_are_cancelled():
    async with queue(queued="ab") as found:
        assert await act("cancel", Order("q", ["a", "nobody"]), found) == 1
        assert await counted(found) == (0, 1)


async def test_an_id_that_does_not_tell_goes_to_every_part():
    async with queue(dead=["mine", "yours"], partitions=2) as found:
        assert await act("purge", Order("q", ["mine", "yours", f"{'0' * 32}-1"]), found) == 2


async def test_a_queue_is_paused_in_all_its_parts():
    async with queue(partitions=2) as found:
        await act("pause", Order("q"), found)
        assert [each.paused for each in await found.counts()] == [True, True]
        await act("resume", Order("q"), found)
        assert [each.paused for each in await found.counts()] == [False, False]


WRONG = [
    ("requeue", {}, "either ids or all"),
    ("requeue", {"ids": ["a"], "all": True}, "either ids or all"),
    ("requeue", {"ids": [""]}, "none of them empty"),
    ("purge", {}, "either ids or all"),
    ("purge", {"ids": ["x"] * 501}, "at most 500"),
    ("cancel", {}, "ids must be given"),
    ("cancel", {"all": True}, "all must be false"),
    ("pause", {"ids": ["a"]}, "as a whole"),
    ("resume", {"all": True}, "as a whole"),
]


@pytest.mark.parametrize(("action", "order", "words"), WRONG)
async def test_orders_that_make_no_sense_change_nothing(action, order, words):
    async with queue(dead="a", queued="b") as found:
        with pytest.raises(ValueError, match=words):
            await act(action, Order("q", **order), found)
        assert await counted(found) == (1, 1)


def test_these_are_all():
    assert list(ACTIONS) == ["requeue", "cancel", "pause", "resume", "purge"]
