"""Waiting for results: told by live messages, found by looking, shared by all that wait."""

from __future__ import annotations

from contextlib import asynccontextmanager
from math import inf
from typing import Any

import anyio
import pytest
from anyio import create_task_group, fail_after, move_on_after, wait_all_tasks_blocked

from aiopatterns.backends.queue import Outcome, QueueEvent
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.errors import (
    BackendError,
    BackendUnavailableError,
    ClosedError,
    JobCancelledError,
    JobNotFoundError,
)
from aiopatterns.jobs.results import Results
from aiopatterns.testing import Trial, cancel_everywhere, explore, simulate

DONE = Outcome("done", b"value", 1)
DEAD = Outcome("dead", b"error", 3)


class Store:
    """A store with what a test puts there; it counts what it is asked."""

    def __init__(self, *, telling=True):
        self.where: dict[str, str] = {}
        self.kept: dict[str, Outcome] = {}
        self.asked: list[list[str]] = []
        self.fetched: list[list[str]] = []
        self.errors: list[Exception] = []  # raised by the next questions
        self.watch_errors: list[Exception] = []
        self.telling = telling
        self.watching = self.watches = 0
        self._tell: Any = None

    async def states(self, ids):
        self.asked.append(list(ids))
        await sleep(0)
        if self.errors:
            raise self.errors.pop(0)
        return {each: self.where.get(each, "unknown") for each in ids}

    async def outcomes(self, ids):
        self.fetched.append(list(ids))
        await sleep(0)
        return {each: self.kept[each] for each in ids if each in self.kept}

    @asynccontextmanager
    async def watch(self):
        self.watches += 1
        if self.watch_errors:
            raise self.watch_errors.pop(0)
        send, receive = anyio.create_memory_object_stream[QueueEvent](inf)
        self.watching += 1
        self._tell = send
        try:
            with send, receive:
                yield receive
        finally:
            self.watching -= 1
            self._tell = None

    def tell(self, kind, job_id=""):
        if self._tell is not None:
            self._tell.send_nowait(QueueEvent(kind, job_id))

    def end(self, job_id, outcome=DONE, *, kept=True):
        self.where[job_id] = outcome.state if kept else "unknown"
        if kept:
            self.kept[job_id] = outcome
        if self.telling:
            self.tell(outcome.state, job_id)

    def stop(self):
        self._tell.close()


@asynccontextmanager
async def running(store):
    results = Results("q", store)
    async with create_task_group() as tasks:
        tasks.start_soon(results.watch)
        tasks.start_soon(results.look)
        await wait_all_tasks_blocked()
        try:
            yield results
        finally:
            tasks.cancel_scope.cancel()


async def test_nothing_is_asked_before_somebody_waits():
    store = Store()
    async with running(store):
        await wait_all_tasks_blocked()
        assert (store.asked, store.watches) == ([], 0)


async def test_what_has_ended_is_found_at_once():
    store = Store()
    store.end("a")
    async with running(store) as results:
        assert await results.wait("a") == DONE
        assert store.asked == [["a"]]
        assert store.fetched == [["a"]]


async def test_what_ends_is_told_and_fetched():
    store = Store()
    store.where["a"] = "running"
    async with running(store) as results, create_task_group() as tasks:
        found: list[Outcome] = []

        async def wait():
            found.append(await results.wait("a"))

        tasks.start_soon(wait)
        tasks.start_soon(wait)
        await wait_all_tasks_blocked()
        assert store.watching == 1
        store.tell("progress", "a")
        store.tell("done", "another")
        await wait_all_tasks_blocked()
        assert not found
        asked = len(store.asked)
        store.end("a", DEAD)
        await wait_all_tasks_blocked()
        assert found == [DEAD, DEAD]
        assert len(store.asked) == asked  # the message was enough
        assert store.fetched == [["a"]]


async def test_all_that_are_due_are_asked_about_together():
    store = Store()
    names = [f"{number:04d}" for number in range(1_200)]
    for name in names:
        store.end(name)
    async with running(store) as results, create_task_group() as tasks:
        for name in names:
            tasks.start_soon(results.wait, name)
    assert max(map(len, store.asked)) == 500
    assert sum(map(len, store.asked)) in range(1_200, 1_300)


def test_a_message_that_is_lost_costs_seconds_and_no_result():
    async def main():
        store = Store(telling=False)
        store.where["a"] = "running"
        async with running(store) as results, create_task_group() as tasks:
            tasks.start_soon(results.wait, "a")
            await sleep(60)
            store.end("a")
            ended = monotonic()
            while results._waits:
                await sleep(0.1)
            assert monotonic() - ended < 5.2
            assert len(store.asked) < 25

    simulate(main)


def test_a_gap_makes_it_look():
    async def main():
        store = Store(telling=False)
        store.where["a"] = "running"
        async with running(store) as results, create_task_group() as tasks:
            tasks.start_soon(results.wait, "a")
            await sleep(0.01)
            store.end("a")
            store.tell("gap")
            with fail_after(0.2):  # the next look would come later
                while results._waits:
                    await sleep(0.001)

    simulate(main)


@pytest.mark.parametrize("state", ["unknown", "done", "dead"])
async def test_what_is_not_kept_is_not_found(state):
    store = Store()
    store.where["a"] = state
    async with running(store) as results:
        with pytest.raises(JobNotFoundError, match="no job a in queue 'q'") as info:
            await results.wait("a")
    assert info.value.job_id == "a"


async def test_a_cancelled_job_is_told_also_if_nothing_is_kept():
    store = Store()
    store.where["a"], store.where["b"] = "cancelled", "running"
    async with running(store) as results, create_task_group() as tasks:
        with pytest.raises(JobCancelledError):
            await results.wait("a")
        errors: list[Exception] = []

        async def wait():
            try:
                await results.wait("b")
            except JobCancelledError as error:
                errors.append(error)

        tasks.start_soon(wait)
        tasks.start_soon(wait)
        await wait_all_tasks_blocked()
        store.where["b"] = "unknown"
        store.tell("cancelled", "b")
        await wait_all_tasks_blocked()
        assert len(errors) == 2
        assert errors[0] is not errors[1]


async def test_what_was_told_and_is_gone_is_looked_for_again():
    """A dead letter that is requeued between the message and the look is queued, not lost."""
    store = Store()
    store.where["a"] = "running"
    async with running(store) as results, create_task_group() as tasks:
        found: list[Outcome] = []

        async def wait():
            found.append(await results.wait("a"))

        tasks.start_soon(wait)
        await wait_all_tasks_blocked()
        store.where["a"] = "queued"
        store.tell("dead", "a")
        await wait_all_tasks_blocked()
        assert not found
        store.end("a")
        await wait_all_tasks_blocked()
        assert found == [DONE]
        store.where["b"] = "running"
        tasks.start_soon(raising, results, "b")
        await wait_all_tasks_blocked()
        store.where["b"] = "unknown"
        store.tell("done", "b")


async def raising(results, job_id):
    with pytest.raises(JobNotFoundError):
        await results.wait(job_id)


def test_an_outage_is_waited_out():
    async def main():
        store = Store()
        store.where["a"] = "running"
        store.errors = [BackendUnavailableError("away")] * 3
        store.watch_errors = [BackendUnavailableError("away")] * 2
        async with running(store) as results:
            async with create_task_group() as tasks:
                tasks.start_soon(results.wait, "a")
                await sleep(3)
                assert store.watching == 1
                store.end("a")
            assert monotonic() < 4

    simulate(main)


async def test_a_backend_that_refuses_is_told_to_all_that_wait_each_with_an_error_of_his_own():
    store = Store()
    store.errors = [BackendError("no rights")]
    async with running(store) as results, create_task_group() as tasks:
        errors: list[BackendError] = []

        async def wait():
            try:
                await results.wait("a")
            except BackendError as error:
                errors.append(error)

        tasks.start_soon(wait)
        tasks.start_soon(wait)
        await wait_all_tasks_blocked()
        assert [str(each) for each in errors] == ["no rights"] * 2
        assert errors[0] is not errors[1]


def test_a_watch_that_ends_by_itself_is_begun_again():
    async def main():
        store = Store()
        store.where["a"] = "running"
        async with running(store) as results, create_task_group() as tasks:
            tasks.start_soon(results.wait, "a")
            await sleep(0.01)
            store.stop()
            await sleep(1)
            assert (store.watching, store.watches) == (1, 2)
            store.end("a")

    simulate(main)


def test_the_watcher_stays_for_a_while_and_leaves():
    async def main():
        store = Store()
        store.where["a"] = "running"
        async with running(store) as results:
            with move_on_after(1):
                await results.wait("a")
            await sleep(4)
            assert store.watching == 1
            with move_on_after(10):
                await results.wait("a")  # while somebody waits it stays
                raise AssertionError
            assert store.watches == 1
            await sleep(6)
            assert store.watching == 0
            asked = len(store.asked)
            await sleep(100)
            assert len(store.asked) == asked
            store.end("a")
            assert await results.wait("a") == DONE
            assert store.watches == 2

    simulate(main)


async def test_closing_ends_all_waits():
    store = Store()
    store.where["a"] = "running"
    async with running(store) as results, create_task_group() as tasks:

        async def wait():
            with pytest.raises(ClosedError, match="JobQueue 'q' was closed while waiting"):
                await results.wait("a")

        tasks.start_soon(wait)
        tasks.start_soon(wait)
        await wait_all_tasks_blocked()
        results.close()
        await wait_all_tasks_blocked()
        assert not results._waits
        with pytest.raises(ClosedError):
            await results.wait("a")


@pytest.mark.promise("jobs-cancel-everywhere")
def test_a_wait_that_is_cancelled_anywhere_leaves_nothing_behind():
    def scenario():
        store: Any = Store()
        store.where["a"] = "running"
        results = Results("q", store)

        async def work():
            async with create_task_group() as tasks:
                tasks.start_soon(results.watch)
                tasks.start_soon(results.look)
                tasks.start_soon(end)
                await results.wait("a")
                tasks.cancel_scope.cancel()

        async def end():
            await sleep(0.01)
            store.end("a")

        def check():
            assert not results._waits
            assert not results._due
            assert store.watching == 0

        return Trial(work(), check)

    cancel_everywhere(scenario, kinds=("native", "scope", "timeout", "native-twice"), minimum=1)


def test_who_is_cancelled_takes_nobody_with_him():
    async def main():
        store = Store()
        store.where["a"] = "running"
        async with running(store) as results, create_task_group() as tasks:
            tasks.start_soon(results.wait, "a")
            with move_on_after(0.5):
                await results.wait("a")
            await sleep(0.5)
            store.end("a")

    explore(main, range(50))


async def test_an_answer_for_nobody_is_dropped():
    store = Store()
    store.where["a"] = "running"
    async with running(store) as results:
        async with create_task_group() as tasks:
            tasks.start_soon(results.wait, "a")
            await wait_all_tasks_blocked()
            store.asked.clear()
            store.where["a"] = "unknown"
            store.tell("done", "a")
            store.tell("gap")
            while not store.fetched:
                await sleep(0)
            tasks.cancel_scope.cancel()
        await wait_all_tasks_blocked()
        assert not results._waits
        assert not results._due
