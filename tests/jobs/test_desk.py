"""The desk: which store is asked about which job, and what their answers come to."""

from __future__ import annotations

import pytest
from anyio import create_task_group

from aiopatterns.backends.queue import Outcome
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.errors import BackendUnavailableError
from aiopatterns.jobs.desk import TRUSTED, Desk
from aiopatterns.testing import simulate

DONE = Outcome("done", b"", 1)


class Store:
    def __init__(self, where=None, *, fraction=None):
        self.where = where or {}
        self.fraction = fraction
        self.asked: list[list[str]] = []

    async def states(self, ids):
        self.asked.append(list(ids))
        return {each: self.where.get(each, "unknown") for each in ids}

    cancel = states

    async def progress(self, job_id):
        return self.fraction


class Waits:
    def __init__(self, number):
        self.number = number

    async def wait(self, job_id):
        return DONE._replace(data=f"{job_id} in {self.number}".encode())


def desk(*stores):
    return Desk(stores, tuple(Waits(number) for number in range(len(stores))), 1_000.0)


def made(partition):
    return "0" * 32 + f"-{partition}"


def test_the_servers_time_is_measured_again_by_one_at_a_time():
    async def main():
        one, answers = desk(Store()), [2_000.0, BackendUnavailableError("away"), 3_000.0]

        async def time():
            await sleep(0.1)
            answer = answers.pop(0)
            if isinstance(answer, Exception):
                raise answer
            return answer

        await sleep(TRUSTED - 0.001)
        assert not one.outdated
        await sleep(0.001)
        async with create_task_group() as tasks:
            assert one.outdated
            tasks.start_soon(one.measure, time)
            await sleep(0.05)
            assert not one.outdated, "another one is at it"
            assert one.now() == pytest.approx(1_000.0 + TRUSTED + 0.05)
        assert one.now() == pytest.approx(2_000.0)
        await sleep(TRUSTED)
        with pytest.raises(BackendUnavailableError):
            await one.measure(time)
        assert one.outdated
        assert one.now() == pytest.approx(2_000.0 + TRUSTED + 0.1)
        await one.measure(time)
        assert not one.outdated
        assert one.now() == pytest.approx(3_000.0)

    simulate(main)


def test_the_servers_time_goes_on_with_the_clock():
    async def main():
        one = desk(Store())
        assert one.now() == pytest.approx(1_000)
        await sleep(60)
        assert one.now() == pytest.approx(1_060)
        assert monotonic() >= 60

    simulate(main)


async def test_one_store_is_asked_once():
    store = Store({"a": "queued"})
    assert await desk(store).states(["a", "b"]) == {"a": "queued", "b": "unknown"}
    assert store.asked == [["a", "b"]]


async def test_ids_go_to_their_partitions_and_unknown_ones_to_all():
    stores = [Store({made(0): "done"}), Store(), Store({"mine": "dead"})]
    found = await desk(*stores).states([made(0), made(1), "mine"])
    assert found == {made(0): "done", made(1): "unknown", "mine": "dead"}
    assert [each.asked for each in stores] == [[[made(0), "mine"]], [[made(1), "mine"]], [["mine"]]]


async def test_a_partition_that_is_known_is_asked_alone():
    stores = [Store(), Store({"mine": "running"})]
    assert await desk(*stores).cancel(["mine"], 1) == {"mine": "running"}
    assert [each.asked for each in stores] == [[], [["mine"]]]


async def test_nothing_is_asked_about_nothing():
    store = Store()
    assert await desk(store, store).states([]) == {}
    assert not store.asked


async def test_progress_is_that_of_who_knows():
    assert await desk(Store(fraction=0.5)).progress("a", 0) == 0.5
    assert await desk(Store(), Store(fraction=0.0)).progress("mine", None) == 0.0
    assert await desk(Store(), Store()).progress("mine", None) is None
    assert await desk(Store(), Store(fraction=1)).progress("mine", 0) is None


async def test_an_outcome_is_awaited_where_the_job_is():
    stores = [Store(), Store({"mine": "queued"}), Store()]
    one = desk(*stores)
    assert (await one.outcome("a", 2)).data == b"a in 2"
    assert (await one.outcome("mine", None)).data == b"mine in 1"
    assert (await one.outcome("nobody", None)).data == b"nobody in 0"


async def test_all_are_asked_and_the_first_error_leaves_bare():
    async def question(store):
        if store.fraction:
            raise BackendUnavailableError("away")
        return 1

    assert await desk(Store(), Store()).all(question) == [1, 1]
    with pytest.raises(BackendUnavailableError):
        await desk(Store(), Store(fraction=1)).all(question)


def test_turns_go_round():
    one = desk(Store(), Store())
    assert [one.next_turn() for _ in range(5)] == [0, 1, 0, 1, 0]
