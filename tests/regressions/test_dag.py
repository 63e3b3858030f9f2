"""Known failures of other libraries that concern task graphs, each a named test."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import anyio
import pytest

from aiopatterns.core.clock import monotonic, sleep, yield_now
from aiopatterns.core.errors import CycleError
from aiopatterns.flow.dag import Dag
from aiopatterns.flow.dagrun import DagRun
from aiopatterns.flow.node import TaskState
from aiopatterns.resilience.backoff import Constant
from aiopatterns.resilience.retry import Retry
from aiopatterns.testing import explore, simulate


class Store:
    """Survives the death of a run, as a file or a server would."""

    def __init__(self):
        self.kept: dict[str, Any] = {}

    async def get(self, key, default):
        await yield_now()
        return self.kept.get(key, default)

    async def set(self, key, value):
        await yield_now()
        self.kept[key] = value


@pytest.mark.promise("regression-20-retry-within-limit")
def test_retries_never_exceed_the_parallelism():
    async def scenario():
        dag = Dag("d", limit=2, resources={"db": 1})
        running = most = db = 0

        def flaky(fails, needs):
            left = [fails]

            async def work():
                nonlocal running, most, db
                running += 1
                db += needs
                most = max(most, running)
                assert db <= 1
                await sleep(1)
                running -= 1
                db -= needs
                left[0] -= 1
                if left[0] >= 0:
                    raise OSError

            return work

        for i in range(6):
            dag.add(
                flaky(i % 3, i % 2),
                id=str(i),
                retry=Retry(on=OSError, backoff=Constant(0.5)),
                resources={"db": 1} if i % 2 else None,
            )
        await dag.run()
        assert most == 2

    explore(scenario, range(50))


@pytest.mark.promise("regression-19-retry-pending-at-end", "regression-20-retry-within-limit")
def test_no_retry_starts_after_the_run_was_cancelled():
    async def scenario():
        dag, tries, cleaned = Dag("d"), [], []

        @dag.task(retry=Retry(on=OSError, backoff=Constant(1)))
        async def flaky():
            tries.append(monotonic())
            raise OSError

        @dag.task
        async def slow():
            try:
                await sleep(100)
            finally:
                with anyio.CancelScope(shield=True):
                    await sleep(5)
                cleaned.append(monotonic())

        with anyio.move_on_after(0.5):
            await dag.run()
        assert tries == [0]
        assert cleaned == [5.5]
        await sleep(10)
        assert tries == [0]

    simulate(scenario)


@pytest.mark.promise("regression-21-dag-cycle-failure-resume")
async def test_a_cycle_made_while_running_is_found_with_its_path():
    dag = Dag("d")

    @dag.task
    async def grow(run: DagRun):
        late = run.add(yield_now, id="late", after=["join"])
        with pytest.raises(CycleError, match="middle -> join -> late -> middle") as caught:
            run.link(late, "middle")
        return caught.value.path

    @dag.task
    async def middle(grow): ...

    @dag.task
    async def join(middle): ...

    run = await dag.run()
    assert run[grow] == ("middle", "join", "late", "middle")
    assert set(run.states.values()) == {TaskState.OK}


@pytest.mark.promise("regression-21-dag-cycle-failure-resume")
def test_running_siblings_of_a_failure_are_awaited():
    async def scenario():
        dag, ended = Dag("d"), []

        @dag.task
        async def sibling():
            try:
                await sleep(100)
            finally:
                with anyio.CancelScope(shield=True):
                    await sleep(3)
                ended.append(monotonic())

        @dag.task
        async def bad():
            await sleep(1)
            raise LookupError("bad")

        with pytest.raises(LookupError, match="bad"):
            await dag.run()
        assert ended == [4]
        assert monotonic() == 4

    simulate(scenario)


@pytest.mark.promise("regression-21-dag-cycle-failure-resume")
@pytest.mark.parametrize("killed_at", ["a", "b", "c", "d"])
def test_a_run_killed_at_any_task_is_resumed_from_there(killed_at):
    async def scenario():
        store, ran = Store(), []
        alive = False

        def task(name):
            async def work(**results):
                ran.append(name)
                if name == killed_at and not alive:
                    await sleep(1000)
                return name + "".join(results.values())

            return work

        def graph():
            dag = Dag("d", limit=1)
            a = dag.add(task("a"), id="a")
            b = dag.add(task("b"), id="b", args={"x": a})
            c = dag.add(task("c"), id="c", args={"x": a})
            return dag, dag.add(task("d"), id="d", args={"x": b, "y": c})

        with anyio.move_on_after(1):
            await graph()[0].run(store=store)
        before, alive = list(ran), True
        dag, last = graph()
        run = await dag.run(store=store)
        assert run[last] == "dbaca"
        again = ran[len(before) :]
        assert killed_at in again
        assert not set(before[:-1]) & set(again), "a finished task ran again"

    simulate(scenario)


@pytest.mark.promise("regression-24-wrong-loop-or-closed")
def test_a_graph_runs_on_any_loop():
    dag = Dag("d")
    dag.add(yield_now, id="x")
    states = []

    def elsewhere():
        with asyncio.Runner(loop_factory=asyncio.SelectorEventLoop) as runner:
            states.append(runner.run(dag.run()).states)

    async def main():
        await dag.run()
        thread = threading.Thread(target=elsewhere)
        thread.start()
        thread.join()

    asyncio.run(main())
    assert states == [{"x": TaskState.OK}]
