from __future__ import annotations

import pytest

from aiopatterns.backends.opening import open_backend
from aiopatterns.backends.queue import Turn
from aiopatterns.dashboard import queues
from aiopatterns.dashboard.queues import Queues
from aiopatterns.jobs.queue import JobQueue


async def test_queues_stay_known_in_order_of_their_names():
    async with open_backend("memory://") as backend:
        known = Queues(backend, ["told"])
        assert [each.name for each in await known.meet({"b": 0, "a": 0})] == ["a", "b", "told"]
        assert [each.name for each in await known.meet({})] == ["a", "b", "told"]
        found = known.get("a")
        assert found is not None
        assert [each.name for each in found.stores] == ["a"]
        assert known.get("stranger") is None


async def test_parts_are_found_where_workers_are_alive():
    async with open_backend("memory://") as backend:
        for number in range(3):
            await backend.queue(f"q:{number}").step(Turn("w", 1, 15))
        await backend.queue("whole").step(Turn("w", 1, 15))
        found = {each.name: each for each in await Queues(backend).meet({"q": 0, "whole": 0})}
        assert [each.name for each in found["q"].stores] == ["q:0", "q:1", "q:2"]
        assert [each.name for each in found["whole"].stores] == ["whole"]
        assert [each.workers for each in await found["q"].counts()] == [1, 1, 1]


async def test_parts_are_bounded(monkeypatch):
    monkeypatch.setattr(queues, "_MAX_PARTITIONS", 2)
    async with open_backend("memory://") as backend:
        for number in range(3):
            await backend.queue(f"q:{number}").step(Turn("w", 1, 15))
        found, told = await Queues(backend).meet({"q": 0, "r": 99})
        assert len(found.stores) == len(told.stores) == 2


async def test_what_can_be_no_name_is_passed_over():
    async with open_backend("memory://") as backend:
        longest = "x" * 1_024
        assert await Queues(backend).meet({"": 0, longest: 0, longest + "x": 0, "é" * 600: 3}) == []


async def test_what_a_producer_says_is_believed():
    async with open_backend("memory://") as backend:
        several, one = await Queues(backend).meet({"a": 3, "b": 1})
        assert [each.name for each in several.stores] == ["a:0", "a:1", "a:2"]
        assert [each.name for each in one.stores] == ["b"]


async def test_a_queue_of_jobs_brings_its_parts_and_its_keys():
    async with open_backend("memory://") as backend:
        jobs = JobQueue("q", "memory://", partitions=2, signing=["k" * 16])
        (found,) = await Queues(backend, [jobs]).meet({})
        assert [each.name for each in found.stores] == ["q:0", "q:1"]
        assert found.envelopes is jobs.envelopes


async def test_there_are_no_more_than_can_be_looked_at(monkeypatch):
    monkeypatch.setattr(queues, "MAX_QUEUES", 3)
    async with open_backend("memory://") as backend:
        names = {f"q{number}": 0 for number in range(10)}
        assert len(await Queues(backend).meet(names)) == 3


@pytest.mark.parametrize(("given", "error"), [([1], TypeError), ([""], ValueError)])
def test_what_is_no_queue_is_refused(given, error):
    with pytest.raises(error, match="queues"):
        Queues(open_backend("memory://"), given)
