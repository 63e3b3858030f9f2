"""Figures of all partitions are summed; a worker of several counts once."""

from __future__ import annotations

import pytest

from aiopatterns.backends.queue import Counts
from aiopatterns.jobs import JobQueue, Unique, Worker
from aiopatterns.jobs.statistics import JobStatistics, summed


def test_figures_are_summed():
    one = Counts(1, 2, 3, 4, 5, frozenset("ab"), False)
    assert one.workers == 2
    assert summed([one]) == JobStatistics(1, 2, 3, 4, 5, False, 2)
    paused = one._replace(paused=True, dead=10, alive=frozenset("bc"))
    assert summed([one, paused]) == JobStatistics(2, 4, 6, 8, 15, True, 3)


async def test_a_worker_of_several_partitions_counts_once():
    jobs = JobQueue("parted", partitions=3)

    @jobs.job
    async def nothing() -> None:
        """There is nothing to do."""

    async with jobs, Worker(jobs), Worker(jobs):
        for _ in range(20):
            await (await nothing.enqueue()).result()
        alive = [(await store.counts()).workers for store in jobs.stores]
        assert alive == [2, 2, 2]
        assert (await jobs.statistics()).workers == 2


async def test_a_key_whose_attribute_is_not_there_is_refused_by_name():
    jobs = JobQueue("keys")

    @jobs.job(unique=Unique("{order.customer}"))
    async def bill(order: int) -> None:
        """Never gets so far."""

    async with jobs:
        with pytest.raises(ValueError, match=r"unique.key '{order.customer}' does not fit"):
            await bill.enqueue(7)
        assert (await jobs.statistics()).queued == 0
