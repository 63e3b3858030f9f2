"""Task graphs as users declare and run them."""

from __future__ import annotations

from typing import Any

import pytest

from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.errors import CycleError, DagError, TimeoutExceededError
from aiopatterns.flow.dag import Dag
from aiopatterns.flow.node import TaskState
from aiopatterns.resilience.backoff import Constant
from aiopatterns.resilience.retry import Retry
from aiopatterns.testing import simulate

OK, FAILED = TaskState.OK, TaskState.FAILED
SKIPPED, CANCELLED = TaskState.SKIPPED, TaskState.CANCELLED


class Store:
    def __init__(self):
        self.kept: dict[str, Any] = {}

    async def get(self, key, default):
        return self.kept.get(key, default)

    async def set(self, key, value):
        self.kept[key] = value


def total(parts: list[int]) -> int:
    return sum(parts)


async def test_results_flow_by_parameter_names():
    etl = Dag("etl")

    @etl.task()
    async def extract(day: str) -> list[str]:
        return [day, day]

    @etl.task
    def load(extract: list[str], factor: int = 3) -> int:
        return len(extract) * factor

    @etl.task(after=[load])
    async def report(day: str = "unused") -> str:
        return f"report of {day}"

    run = await etl.run({"day": "monday"})
    assert run[extract] == ["monday", "monday"]
    assert run[load] == 6
    assert run["report"] == "report of monday"
    assert run.states == {"extract": OK, "load": OK, "report": OK}
    assert [span.id for span in run.trace] == ["extract", "load", "report"]
    assert all(span.attempts == 1 and span.start <= span.end for span in run.trace)
    assert run.elapsed >= run.trace[-1].end
    assert repr(etl) == "Dag('etl', 3 tasks)"
    assert list(etl.tasks) == ["extract", "load", "report"]


async def test_one_function_for_several_tasks():
    etl = Dag("etl")

    async def double(x: int) -> int:
        return 2 * x

    one = etl.add(double, id="one", args={"x": 1})
    two = etl.add(double, id="two", args={"x": one})
    both = etl.add(total, id="both", args={"parts": [one, two]})
    run = await etl.run()
    assert (run[one], run[two], run[both]) == (2, 4, 6)
    assert await one(5) == 10


async def test_an_empty_graph_runs():
    run = await Dag("empty").run()
    assert run.states == {}
    assert run.trace == ()


async def test_a_graph_may_run_several_times_at_once():
    import anyio

    etl = Dag("etl")
    etl.add(lambda x: x + 1, id="next")
    results = []

    async def once(x):
        results.append((await etl.run(inputs={"x": x}))["next"])

    async with anyio.create_task_group() as group:
        for x in range(5):
            group.start_soon(once, x)
    assert sorted(results) == [1, 2, 3, 4, 5]


def run_of(error: BaseException) -> Any:
    return vars(error)["run"]


async def test_fail_fast_raises_the_tasks_own_error_with_the_run():
    etl = Dag("etl")
    error = LookupError("no rows")
    ended = []

    @etl.task
    async def bad():
        await sleep(0)
        raise error

    @etl.task
    async def slow():
        try:
            await sleep(1000)
        finally:
            ended.append("slow")

    @etl.task
    async def behind(bad): ...

    @etl.task
    async def last(behind, slow): ...

    with pytest.raises(LookupError) as caught:
        await etl.run()
    assert caught.value is error
    run = run_of(error)
    assert error.__notes__ == ["task 'bad' of dag 'etl'"]
    assert ended == ["slow"]
    assert run.states == {"bad": FAILED, "slow": CANCELLED, "behind": SKIPPED, "last": SKIPPED}
    with pytest.raises(LookupError):
        run[bad]
    with pytest.raises(DagError, match="'behind' has no result: skipped because 'bad' did not"):
        run[behind]
    with pytest.raises(DagError, match="'slow' has no result: cancelled") as refused:
        run[slow]
    assert run_of(refused.value) == run
    with pytest.raises(
        KeyError, match="no task is called 'nobody'; tasks: bad, slow, behind, last"
    ):
        run["nobody"]


async def test_continue_skips_only_what_is_behind():
    etl = Dag("etl")

    @etl.task
    async def bad():
        raise OSError("x")

    @etl.task
    async def behind(bad): ...

    @etl.task
    async def further(behind, good): ...

    @etl.task
    async def good():
        return 1

    run = await etl.run(mode="continue")
    assert run.states == {"bad": FAILED, "behind": SKIPPED, "further": SKIPPED, "good": OK}
    assert run[good] == 1
    with pytest.raises(DagError, match="because 'bad'"):
        run[further]


def test_timeouts_and_retries_in_virtual_time():
    async def scenario():
        etl = Dag("etl", limit=1)
        attempts = []

        @etl.task(timeout=2, retry=Retry(on=TimeoutError, attempts=3, backoff=Constant(10)))
        async def slow():
            attempts.append(monotonic())
            await sleep(1 if len(attempts) == 3 else 5)
            return "at last"

        @etl.task
        async def meanwhile():
            await sleep(3)
            return monotonic()

        run = await etl.run()
        assert attempts == [0, 12, 24]
        assert run[slow] == "at last"
        assert run[meanwhile] == 5, "a waiting retry holds no slot"
        span = run.trace[-1]
        assert (span.id, span.start, span.end, span.attempts) == ("slow", 0, 25, 3)

        late = Dag("late")
        late.add(sleep, id="late", args={"seconds": 9}, timeout=1)
        with pytest.raises(
            TimeoutExceededError, match="task 'late' took longer than 1 s"
        ) as caught:
            await late.run()
        assert caught.value.timeout == 1

    simulate(scenario)


async def test_results_are_kept_as_asked():
    etl = Dag("etl")
    a = etl.add(lambda: "a", id="a")
    b = etl.add(lambda a: a + "b", id="b")
    c = etl.add(lambda a, b: a + b + "c", id="c")
    run = await etl.run(keep=[c, "b"])
    assert run[c] == "aabc"
    assert run[b] == "ab"
    with pytest.raises(DagError, match="the result of task 'a' was not kept: name it in keep="):
        run[a]
    run = await etl.run(keep=[])
    assert run._values == {}


async def test_a_broken_off_run_is_resumed():
    etl, store, ran = Dag("etl"), Store(), []
    broken = True

    @etl.task
    async def extract(day):
        ran.append("extract")
        return [day]

    @etl.task
    async def load(extract):
        ran.append("load")
        if broken:
            raise OSError("disk")
        return len(extract)

    with pytest.raises(OSError, match="disk"):
        await etl.run({"day": "monday"}, store=store)
    broken = False
    run = await etl.run({"day": "monday"}, store=store)
    assert run[load] == 1
    assert ran == ["extract", "load", "load"]
    assert [span.attempts for span in run.trace] == [0, 1]
    await etl.run({"day": "tuesday"}, store=store)
    assert ran == ["extract", "load", "load", "extract", "load"]
    with pytest.raises(DagError, match="no fingerprint"):
        await etl.run({"day": object()}, store=store)


async def test_wrong_graphs_start_nothing():
    started: list[int] = []
    etl = Dag("etl")
    etl.add(lambda: started.append(1), id="first")
    etl.add(lambda b: b, id="a")
    etl.add(lambda a: a, id="b")
    with pytest.raises(CycleError, match="a -> b -> a") as caught:
        await etl.run()
    assert caught.value.path == ("a", "b", "a")
    with pytest.raises(CycleError):
        etl.to_mermaid()
    lacking = Dag("lacking")
    lacking.add(lambda: started.append(1), id="first")
    lacking.add(lambda day: day, id="second")
    with pytest.raises(DagError, match="task 'second' needs 'day'"):
        await lacking.run()
    with pytest.raises(DagError, match="refers to 'nobody'"):
        unknown = Dag("unknown")
        unknown.add(lambda: 1, id="x", after=["nobody"])
        await unknown.run()
    assert not started


@pytest.mark.promise("flow-bad-input")
async def test_bad_input():
    wrong: Any = 3
    empty: Any = []
    with pytest.raises(ValueError, match="name must be"):
        Dag("")
    with pytest.raises(ValueError, match="limit must be"):
        Dag("d", limit=0)
    with pytest.raises(TypeError, match="resources must be a mapping"):
        Dag("d", resources=wrong)
    with pytest.raises(ValueError, match=r"resources\['db'\] must be"):
        Dag("d", resources={"db": 0})
    etl = Dag("etl", resources={"db": 4})
    with pytest.raises(ValueError, match="must be at most its capacity \\(4\\), not 5"):
        etl.add(lambda: 1, id="x", resources={"db": 5})
    with pytest.raises(ValueError, match="must be at most its capacity \\(1\\), not 2"):
        etl.add(lambda: 1, id="x", resources={"tape": 2})
    etl.add(lambda: 1, id="x")
    with pytest.raises(DagError, match="there is a task 'x' already"):
        etl.add(lambda: 1, id="x")
    for mistaken in (wrong, empty):
        with pytest.raises(TypeError, match="inputs must be a mapping"):
            await etl.run(mistaken)
    with pytest.raises(ValueError, match="mode must be"):
        await etl.run(mode=wrong)
    with pytest.raises(TypeError, match="resources must be a mapping"):
        Dag("d", resources=empty)
    for mistaken in (wrong, "x", [wrong, "x"]):
        with pytest.raises(TypeError, match="keep must be a list of tasks or ids, not"):
            await etl.run(keep=mistaken)
    with pytest.raises(ValueError, match="keep must name tasks"):
        await etl.run(keep=["y"])


def test_mermaid():
    etl = Dag("etl")
    a = etl.add(lambda: 1, id='a "quoted" <b>')
    etl.add(lambda x: x, id="b", args={"x": a})
    etl.add(lambda b: b, id="c", after=[a])
    assert etl.to_mermaid().splitlines() == [
        "flowchart LR",
        '    t0["a &quot;quoted&quot; &lt;b>"]',
        '    t1["b"]',
        '    t2["c"]',
        "    t0 --> t1",
        "    t0 -.-> t2",
        "    t1 --> t2",
    ]


async def test_its_runs_can_be_looked_at():
    dag, seen = Dag("etl"), list[tuple[int, dict[str, TaskState]]]()

    @dag.task
    async def extract() -> None: ...

    @dag.task(after=[extract])
    async def load() -> None:
        (run,) = dag.runs
        seen.append((len(run.graph), run.states))
        raise ValueError

    assert dag.graph.edges == [("extract", "load")]
    assert (dag.runs, dag.last_states) == ((), {})
    with pytest.raises(ValueError):
        await dag.run()
    assert seen == [(2, {"extract": OK, "load": TaskState.RUNNING})]
    assert (dag.runs, dag.last_states) == ((), {"extract": OK, "load": FAILED})
