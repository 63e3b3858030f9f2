from __future__ import annotations

import anyio
import pytest

from aiopatterns.core.clock import sleep
from aiopatterns.core.errors import SagaError
from aiopatterns.dashboard.flows import dag_flows, pipeline_flows, saga_flows
from aiopatterns.data.saga import Saga
from aiopatterns.data.sagastore import MemorySagaStore
from aiopatterns.flow.dag import Dag
from aiopatterns.flow.pipeline import Pipeline


def states(view):
    return {each.id: each.state for each in view.nodes}


async def test_a_graph_before_during_and_after_its_runs():
    dag, go = Dag("etl"), anyio.Event()

    @dag.task
    async def extract() -> int:
        return 1

    @dag.task
    async def load(extract: int) -> None:
        await go.wait()

    @dag.task(after=[load])
    async def report() -> None: ...

    (before,) = dag_flows(dag)
    assert (before.kind, before.name, before.id) == ("dag", "etl", "")
    assert set(before.edges) == {("extract", "load"), ("load", "report")}
    assert set(states(before).values()) == {"pending"}
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(dag.run)
        await anyio.wait_all_tasks_blocked()
        (one,) = dag_flows(dag)
        assert states(one) == {"extract": "ok", "load": "running", "report": "pending"}
        tasks.start_soon(dag.run)
        await anyio.wait_all_tasks_blocked()
        assert [each.id for each in dag_flows(dag)] == ["1", "2"]
        go.set()
    (after,) = dag_flows(dag)
    assert set(states(after).values()) == {"ok"}
    assert dag.runs == ()


async def test_a_run_that_failed_shows_where():
    dag = Dag("etl")

    @dag.task
    async def extract() -> None:
        raise ValueError

    @dag.task(after=[extract])
    async def load() -> None: ...

    with pytest.raises(ValueError):
        await dag.run()
    (view,) = dag_flows(dag)
    assert states(view)["extract"] == "failed"
    assert states(view)["load"] != "ok"


async def test_of_a_large_graph_some_is_drawn():
    dag = Dag("wide")
    for number in range(300):
        dag.add(sleep, id=f"t{number}", args={"seconds": 0})
    (view,) = dag_flows(dag)
    assert len(view.nodes) == 200


async def test_a_pipeline_with_branches():
    async def double(item: int) -> int:
        return 2 * item

    async def wrong(item: int) -> int:
        raise ValueError(item)

    line = (
        Pipeline(range(10), name="line")
        .map(double)
        .broadcast(
            lambda each: each.map(double).named("left"),
            lambda each: each.map(double).named("right"),
        )
        .batch(4)
    )
    async with line.open() as run:
        found = [each async for each in run]
        (view,) = pipeline_flows(run)
    assert sum(map(len, found)) == 20
    (over,) = pipeline_flows(run)
    names = [each.id for each in over.nodes]
    assert names[0] == "source"
    assert names[-1] == "output"
    ends = {name.partition(" ")[2]: name for name in names[1:-1]}
    assert {
        ("source", ends["double"]),
        (ends["double"], ends["broadcast"]),
        (ends["broadcast"], ends["left"]),
        (ends["broadcast"], ends["right"]),
        (ends["left"], ends["batch"]),
        (ends["right"], ends["batch"]),
        (ends["batch"], "output"),
    } == set(over.edges)
    assert set(states(view).values()) == {"running"}
    assert set(states(over).values()) == {"done"}
    assert over.nodes[0].label == "source: 10"
    with pytest.raises(ValueError):
        async with (failing := Pipeline([1], name="bad").map(wrong).open()):
            [each async for each in failing]
    (bad,) = pipeline_flows(failing)
    assert "failed" in states(bad).values()


async def test_a_pipeline_that_has_read_nothing():
    gate = anyio.Event()

    async def source():
        await gate.wait()
        yield 1

    async with Pipeline(source(), name="idle").map(sleep).open() as run:
        (view,) = pipeline_flows(run)
        assert list(states(view).values()) == ["running", "pending", "pending"]


async def test_sagas_that_have_not_ended():
    store = MemorySagaStore()
    saga: Saga = Saga("checkout", store)
    go = anyio.Event()

    async def undo(context: dict[str, str]) -> None: ...

    @saga.step(compensate=undo)
    async def reserve(context: dict[str, str]) -> None: ...

    @saga.step(compensate=undo)
    async def pay(context: dict[str, str]) -> None:
        await go.wait()
        raise ValueError("no money")

    @saga.step
    async def ship(context: dict[str, str]) -> None: ...

    (before,) = await saga_flows(saga)
    assert states(before) == {"reserve": "pending", "pay": "pending", "ship": "pending"}
    assert before.edges == [("reserve", "pay"), ("pay", "ship")]

    async def run() -> None:
        with pytest.raises(SagaError):
            await saga.run({}, id="order-17")

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(run)
        await anyio.wait_all_tasks_blocked()
        (during,) = await saga_flows(saga)
        assert (during.kind, during.name, during.id) == ("saga", "checkout", "order-17")
        assert states(during) == {"reserve": "done", "pay": "started", "ship": "pending"}
        go.set()
    (after,) = await saga_flows(saga)
    assert after.id == ""


async def test_a_saga_that_ends_while_it_is_read(monkeypatch):
    saga: Saga = Saga("checkout", MemorySagaStore())

    @saga.step
    async def pay(context: dict[str, str]) -> None: ...

    async def unfinished(self, *, limit):
        from aiopatterns.data.sagajournal import SagaState
        from aiopatterns.data.sagastore import Listed

        return [Listed("gone", "1", SagaState.RUNNING)]

    monkeypatch.setattr(Saga, "unfinished", unfinished)
    (view,) = await saga_flows(saga)
    assert view.id == ""
