"""One run of a graph: limits, order, failures, additions; in virtual time and under many seeds."""

from __future__ import annotations

import asyncio
import contextvars
import threading
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.core.clock import monotonic, sleep, yield_now
from aiopatterns.core.context import remaining
from aiopatterns.core.errors import CycleError, DagError, JobCancelledError, TimeoutExceededError
from aiopatterns.flow.dag import Dag
from aiopatterns.flow.dagrun import DagRun
from aiopatterns.flow.node import TaskState
from aiopatterns.resilience.backoff import Constant
from aiopatterns.resilience.budget import Budget
from aiopatterns.resilience.retry import Retry, Until
from aiopatterns.testing import Trial, cancel_everywhere, explore, fail_everywhere, simulate

OK, FAILED = TaskState.OK, TaskState.FAILED
SKIPPED, CANCELLED = TaskState.SKIPPED, TaskState.CANCELLED
VARIABLE = contextvars.ContextVar("variable", default="unset")


class Store:
    def __init__(self):
        self.kept: dict[str, Any] = {}

    async def get(self, key, default):
        return self.kept.get(key, default)

    async def set(self, key, value):
        self.kept[key] = value


def run_of(error: BaseException) -> Any:
    return vars(error)["run"]


def test_priorities_then_the_longest_way_then_the_order_of_declaration():
    async def scenario():
        dag, order = Dag("d", limit=1), []
        for name, priority in [("plain", 0), ("long", 0), ("urgent", 5), ("late", -1)]:
            dag.add(lambda name=name: order.append(name), id=name, priority=priority)
        dag.add(lambda: order.append("tail"), id="tail", after=["long"])
        await dag.run()
        assert order == ["urgent", "long", "plain", "tail", "late"]

    simulate(scenario)


def test_the_order_of_declaration_counts_though_a_task_waited_for_others():
    async def scenario():
        dag, order = Dag("d", limit=1), []
        dag.add(lambda: order.append("declared first"), id="a", after=["before"])
        dag.add(lambda: order.append("before"), id="before")
        dag.add(lambda: order.append("declared last"), id="z")
        await dag.run()
        assert order == ["before", "declared first", "declared last"]

    simulate(scenario)


def test_limits_and_resources_are_never_exceeded():
    async def scenario():
        dag = Dag("d", limit=3, resources={"db": 2})
        running, most, db, most_db = 0, 0, 0, 0

        def worker(needs):
            async def work():
                nonlocal running, most, db, most_db
                running, db = running + 1, db + needs
                most, most_db = max(most, running), max(most_db, db)
                await sleep(1)
                running, db = running - 1, db - needs

            return work

        for i in range(9):
            needs = i % 3
            dag.add(worker(needs), id=str(i), resources={"db": needs} if needs else None)
        run = await dag.run()
        assert set(run.states.values()) == {OK}
        assert most == 3
        assert most_db == 2
        assert {span.slot for span in run.trace} == {0, 1, 2}

    explore(scenario, range(30))


def test_context_is_the_callers_and_each_tasks_own():
    async def scenario():
        dag, seen = Dag("d", limit=1), []

        async def leave_a_mark():
            seen.append(VARIABLE.get())
            VARIABLE.set("somebody else")

        for i in range(3):
            dag.add(leave_a_mark, id=str(i))
        dag.add(lambda: seen.append(VARIABLE.get()), id="thread")
        VARIABLE.set("caller")
        await dag.run()
        assert seen == ["caller"] * 4

    simulate(scenario)


async def test_a_synchronous_function_that_gives_an_awaitable():
    dag = Dag("d")
    task = dag.add(lambda: sleep(0), id="x")
    assert (await dag.run())[task] is None


async def test_a_task_that_cancels_itself_has_failed():
    dag = Dag("d")

    @dag.task
    async def quits():
        raise asyncio.CancelledError

    @dag.task
    async def behind(quits): ...

    with pytest.raises(JobCancelledError, match="task 'quits' cancelled itself"):
        await dag.run()
    run = await dag.run(mode="continue")
    assert run.states == {"quits": FAILED, "behind": SKIPPED}


async def test_an_error_without_room_for_an_attribute():
    class Tight(Exception):
        __slots__ = ()

        def __setattr__(self, name, value):
            raise AttributeError(name)

    dag = Dag("d")

    @dag.task
    async def bad():
        raise Tight

    with pytest.raises(Tight):
        await dag.run()


def test_a_predicate_that_raises_ends_the_task():
    async def scenario():
        def broken(error):
            raise LookupError("predicate")

        dag = Dag("d")

        @dag.task(retry=Retry(on=broken))
        async def bad():
            raise OSError

        with pytest.raises(LookupError, match="predicate"):
            await dag.run()

    simulate(scenario)


def test_a_predicate_of_results_that_raises_ends_the_task():
    async def scenario():
        def broken(result):
            raise LookupError("predicate")

        dag, ran = Dag("d"), []
        dag.add(lambda: ran.append(1), id="x", retry=Retry(on=Exception, on_result=broken))
        with pytest.raises(LookupError, match="predicate"):
            await dag.run()
        assert ran == [1]

    simulate(scenario)


def test_results_that_are_not_wanted_are_retried_and_not_stored():
    async def scenario():
        store, values = Store(), iter([1, 2, 3, 1, 1])
        retry = Retry(on=OSError, attempts=3, backoff=Constant(5), on_result=lambda v: v < 3)
        dag = Dag("d", limit=1)

        @dag.task(retry=retry)
        async def ask():
            return next(values)

        @dag.task(retry=retry, after=[ask])
        async def ask_in_vain():
            return next(values, 0)

        run = await dag.run(store=store)
        assert run[ask] == 3
        assert run[ask_in_vain] == 0, "when the attempts are used up, the last result counts"
        assert sorted(store.kept.values()) == [0, 3]
        assert [(span.id, span.attempts, span.end) for span in run.trace] == [
            ("ask", 3, 10),
            ("ask_in_vain", 3, 20),
        ]

    simulate(scenario)


def test_the_time_of_all_attempts_together():
    async def scenario():
        dag, left = Dag("d"), []
        retry = Retry(on=OSError, backoff=Constant(1), until=Until(total=4))

        @dag.task(retry=retry, timeout=100)
        async def slow():
            left.append(remaining())
            await sleep(2)
            raise OSError

        with pytest.raises(TimeoutExceededError, match="timed out after 4 s"):
            await dag.run()
        assert left == [4, 1]
        assert monotonic() == 4

    simulate(scenario)


def test_a_retry_whose_time_was_over_before_it_had_a_slot():
    async def scenario():
        dag = Dag("d", limit=1)

        @dag.task(retry=Retry(on=OSError, backoff=Constant(1), until=Until(total=4)))
        async def flaky():
            raise OSError

        @dag.task
        async def long():
            await sleep(9)

        with pytest.raises(TimeoutExceededError):
            await dag.run()
        assert monotonic() == 9

    simulate(scenario)


async def test_a_retry_inside_a_retried_task_warns():
    inner = Retry(on=OSError, attempts=2, backoff=Constant(0))

    async def fail():
        raise OSError

    dag = Dag("d")
    dag.add(inner.wrap(fail), id="x", retry=Retry(on=OSError, attempts=2, backoff=Constant(0)))
    with pytest.warns(RuntimeWarning, match="their attempts multiply"), pytest.raises(OSError):
        await dag.run()


def budgeted():
    """A budget that counts what is in flight, and a retry with it."""
    budget = Budget.ratio(1.0)
    retry = Retry(
        on=OSError, attempts=3, backoff=Constant(1), budget=budget, on_result=lambda v: v == "bad"
    )
    return budget, retry


def at_rest(budget: Any) -> bool:
    return budget._calls == budget._extras == 0


def test_however_a_task_ends_its_budget_is_at_rest():
    async def scenario():
        budget, retry = budgeted()
        dag, store, results = Dag("d"), Store(), iter(["bad", OSError(), "good"])

        @dag.task(retry=retry)
        async def moody():
            result = next(results)
            if isinstance(result, OSError):
                raise result
            return result

        assert (await dag.run(store=store))[moody] == "good"
        assert (await dag.run(store=store))[moody] == "good"
        assert at_rest(budget)

    simulate(scenario)


def test_a_cancelled_run_leaves_the_budget_at_rest():
    def factory():
        budget, retry = budgeted()
        dag, fails = Dag("d", limit=2), [True]

        async def flaky():
            await sleep(1)
            if fails:
                fails.pop()
                raise OSError

        for name in "abc":
            dag.add(flaky, id=name, retry=retry)

        async def work():
            await dag.run(store=Store())

        def check():
            assert at_rest(budget)

        return Trial(work(), check)

    cancel_everywhere(factory, kinds=("native", "scope", "timeout", "native-twice"))
    cancel_everywhere(factory, seed=3)


def test_a_retry_that_waits_for_a_slot_when_the_run_ends_leaves_the_budget_at_rest():
    async def scenario():
        budget, retry = budgeted()
        dag = Dag("d", limit=1)

        @dag.task(retry=retry, priority=1)
        async def flaky():
            raise OSError

        @dag.task
        async def bad():
            await sleep(5)
            raise LookupError

        with pytest.raises(LookupError) as caught:
            await dag.run()
        assert run_of(caught.value).states == {"flaky": CANCELLED, "bad": FAILED}
        assert at_rest(budget)

    simulate(scenario)


@pytest.mark.parametrize("verb", ["get", "set"])
@pytest.mark.parametrize(
    ("error", "seen"), [(OSError, OSError), (asyncio.CancelledError, JobCancelledError)]
)
async def test_a_store_that_fails_ends_the_task_and_runs_nothing_again(verb, error, seen):
    class Broken(Store):
        pass

    async def refuse(*args):
        raise error

    setattr(Broken, verb, staticmethod(refuse))
    budget, retry = budgeted()
    dag, ran = Dag("d"), []
    dag.add(lambda: ran.append(1), id="x", retry=retry)
    with pytest.raises(seen):
        await dag.run(store=Broken())
    assert ran == ([] if verb == "get" else [1])
    assert at_rest(budget)


def test_no_retry_is_shown_a_task_that_cancels_itself():
    async def scenario():
        budget, shown = Budget.ratio(1.0), []
        dag = Dag("d")

        def judge(error):
            shown.append(error)
            return True

        @dag.task(retry=Retry(on=judge, budget=budget))
        async def quits():
            raise asyncio.CancelledError

        with pytest.raises(JobCancelledError, match="task 'quits' cancelled itself"):
            await dag.run()
        assert not shown
        assert at_rest(budget)

    simulate(scenario)


@pytest.mark.parametrize("thread", [False, True])
async def test_what_is_no_exception_leaves_bare(thread):
    class Alarm(BaseException):
        pass

    def ring():
        raise Alarm

    async def ring_here():
        ring()

    dag = Dag("d")
    dag.add(ring if thread else ring_here, id="x")
    dag.add(anyio.sleep_forever, id="sibling")
    with pytest.raises(Alarm):
        await dag.run()


def test_failures_of_siblings_that_are_being_cancelled_are_seen_but_not_retried():
    async def scenario():
        dag = Dag("d")
        tries = []

        @dag.task(retry=Retry(on=OSError, attempts=9, backoff=Constant(0.1)))
        async def messy():
            tries.append(1)
            try:
                await sleep(100)
            finally:
                raise OSError("in cleanup")

        @dag.task
        async def bad():
            await sleep(1)
            raise KeyError("first")

        with pytest.raises(KeyError) as caught:
            await dag.run()
        run = run_of(caught.value)
        assert run.states == {"messy": FAILED, "bad": FAILED}
        assert len(tries) == 1
        with pytest.raises(OSError, match="in cleanup"):
            run[messy]

    simulate(scenario)


def test_a_waiting_retry_is_dropped_when_the_run_ends():
    async def scenario():
        budget = Budget.tokens(ratio=0.5, min_per_second=1, ttl=10)
        retry = Retry(on=OSError, attempts=9, backoff=Constant(5), budget=budget)
        dag, tries = Dag("d"), []

        @dag.task(retry=retry)
        async def flaky():
            tries.append(monotonic())
            raise OSError

        @dag.task(retry=Retry(on=KeyError))
        async def fine():
            return 1

        @dag.task
        async def bad():
            await sleep(2)
            raise LookupError

        with pytest.raises(LookupError) as caught:
            await dag.run()
        assert monotonic() == 2
        assert tries == [0]
        run = run_of(caught.value)
        assert run.states == {"flaky": CANCELLED, "fine": OK, "bad": FAILED}

    simulate(scenario)


def test_what_succeeds_while_the_run_ends_starts_nothing():
    async def scenario():
        dag = Dag("d")

        @dag.task
        async def stubborn():
            try:
                await sleep(100)
            except asyncio.CancelledError:
                return "done anyway"

        @dag.task
        async def behind(stubborn): ...

        @dag.task
        async def bad():
            await sleep(1)
            raise LookupError

        with pytest.raises(LookupError) as caught:
            await dag.run()
        run = run_of(caught.value)
        assert run.states == {"stubborn": OK, "behind": CANCELLED, "bad": FAILED}

    simulate(scenario)


async def test_tasks_that_never_wait_do_not_starve_the_loop():
    dag, turns, ended = Dag("d", limit=1), [], []

    async def at_once():
        ended.append(1)

    async def other():
        while len(ended) < 50:
            turns.append(len(ended))
            await yield_now()

    for i in range(50):
        dag.add(at_once, id=str(i))
    async with anyio.create_task_group() as group:
        group.start_soon(other)
        await dag.run()
    assert any(0 < turn < 50 for turn in turns)


def test_nothing_starts_in_a_cancelled_scope_though_a_task_swallows_that():
    async def scenario():
        dag, started = Dag("d", limit=1), []

        @dag.task
        async def deaf():
            try:
                await sleep(10)
            except asyncio.CancelledError:
                return "heard nothing"

        @dag.task
        async def behind(deaf):
            started.append(1)

        with anyio.move_on_after(1) as scope:
            await dag.run()
        assert scope.cancelled_caught
        assert not started

    simulate(scenario)


async def test_a_task_that_cancels_and_forgives_itself_stops_nobody():
    dag = Dag("d", limit=1)

    @dag.task
    async def odd():
        task = asyncio.current_task()
        assert task is not None
        task.cancel()
        try:
            await yield_now()
        except asyncio.CancelledError:
            return 1

    @dag.task
    async def behind(odd):
        return odd + 1

    run = await dag.run()
    assert run[behind] == 2


# -- tasks that add tasks


async def part(i: int) -> int:
    await yield_now()
    return i * i


async def test_tasks_may_add_tasks():
    dag = Dag("d")

    @dag.task
    async def split(n: int, run: DagRun) -> list[Any]:
        parts = [run.add(part, id=f"part-{i}", args={"i": i}) for i in range(n)]
        for each in parts:
            run.link(each, "join")
            run.link(each, "join")
        run.add(lambda parts: sum(parts) + 0, id="sum", args={"parts": parts})
        return parts

    @dag.task
    async def join(split):
        return len(split)

    run = await dag.run({"n": 3})
    assert run[join] == 3
    assert [run[each] for each in run[split]] == [0, 1, 4]
    assert run["sum"] == 5
    assert set(run.states.values()) == {OK}
    assert len(dag.tasks) == 2


async def test_what_may_not_be_added():
    dag = Dag("d", resources={"db": 1})
    errors: list[Exception] = []

    def attempt(call):
        try:
            call()
        except Exception as error:
            errors.append(error)

    @dag.task
    async def first() -> int:
        return 1

    @dag.task
    async def early(first) -> int:
        return first + 1

    @dag.task
    async def grow(early, run: DagRun):
        attempt(lambda: run.add(part, id="grow"))
        attempt(lambda: run.add(part, id="lacking"))
        attempt(lambda: run.add(part, id="x", args={"i": 1}, after=["nobody"]))
        attempt(lambda: run.add(part, id="x", args={"i": 1}, resources={"db": 2}))
        attempt(lambda: run.add(lambda first: first, id="gone"))
        attempt(lambda: run.link("last", "middle"))
        attempt(lambda: run.link("last", "last"))
        attempt(lambda: run.link("grow", "early"))
        attempt(lambda: run.link("other", "early"))
        attempt(lambda: run.link("nobody", "last"))
        attempt(lambda: run["middle"])
        run.link("early", "last")
        return run

    @dag.task
    async def other(grow): ...

    @dag.task
    async def middle(grow): ...

    @dag.task
    async def last(middle): ...

    run = await dag.run(keep=["grow"])
    texts = [str(error) for error in errors]
    assert "there is a task 'grow' already" in texts[0]
    assert "needs 'i'" in texts[1]
    assert "refers to 'nobody'" in texts[2]
    assert "at most its capacity" in texts[3]
    assert "the result of task 'first' was not kept" in texts[4]
    assert isinstance(errors[5], CycleError)
    assert errors[5].path == ("middle", "last", "middle")
    assert isinstance(errors[6], CycleError)
    assert errors[6].path == ("last", "last")
    assert "these tasks wait for each other: early -> grow -> early" in texts[7]
    assert isinstance(errors[8], CycleError)
    assert "no task 'nobody'" in texts[9]
    assert "'middle' has no result: pending" in texts[10]
    assert len(errors) == 11
    with pytest.raises(DagError, match="the run of dag 'd' is over"):
        run.add(part, id="late", args={"i": 1})
    with pytest.raises(DagError, match="is over"):
        run.link("early", "last")


def test_added_tasks_see_the_variables_of_the_caller_not_of_who_added_them():
    async def scenario():
        dag, seen = Dag("d"), []

        async def child():
            seen.append(VARIABLE.get())

        @dag.task
        async def grow(run: DagRun):
            VARIABLE.set("the adding task")
            for i in range(3):
                run.add(child, id=f"child-{i}")
            await sleep(1)

        VARIABLE.set("caller")
        await dag.run()
        assert seen == ["caller"] * 3

    simulate(scenario)


async def test_a_task_that_is_refused_leaves_no_trace():
    dag = Dag("d")

    @dag.task
    async def grow(run: DagRun):
        with pytest.raises(DagError, match="no fingerprint"):
            run.add(part, id="odd", args={"i": object()})
        run.add(part, id="odd", args={"i": 3})

    run = await dag.run(store=Store())
    assert run.states == {"grow": OK, "odd": OK}
    assert run["odd"] == 9


@pytest.mark.real
async def test_a_synchronous_task_cannot_add_tasks_from_its_thread():
    dag = Dag("d")

    @dag.task
    def grow(run: DagRun):
        for refused in (lambda: run.add(part, id="x", args={"i": 1}), lambda: run.link("a", "b")):
            with pytest.raises(RuntimeError, match=r"make the task.*an async function"):
                refused()
        return list(run.states)

    run = await dag.run()
    assert run[grow] == ["grow"]


async def test_links_to_what_has_started_or_failed():
    dag = Dag("d")

    @dag.task
    async def bad():
        raise OSError

    @dag.task
    async def behind(bad): ...

    @dag.task
    async def grow(run: DagRun):
        while run.states["bad"] is not FAILED:
            await yield_now()
        with pytest.raises(DagError, match="'grow' does not wait any more"):
            run.link("bad", "grow")
        run.link("bad", "behind")
        run.link("grow", "behind")
        run.link("bad", "later")
        skipped = run.add(part, id="orphan", args={"i": 1}, after=[behind])
        started = run.add(part, id="child", args={"i": 2}, after=[grow])
        return [skipped, started]

    @dag.task
    async def later(grow): ...

    run = await dag.run(mode="continue")
    assert run.states == {
        "bad": FAILED,
        "behind": SKIPPED,
        "grow": OK,
        "later": SKIPPED,
        "orphan": SKIPPED,
        "child": OK,
    }
    with pytest.raises(DagError, match="because 'bad'"):
        run["orphan"]


async def test_a_task_that_adds_tasks_runs_again_when_resumed():
    dag, ran = Dag("d"), []

    async def child(i):
        ran.append(i)
        return i

    @dag.task
    async def grow(run: DagRun):
        ran.append("grow")
        return [run.add(child, id=f"child-{i}", args={"i": i}).id for i in range(2)]

    store = Store()
    await dag.run(store=store)
    run = await dag.run(store=store)
    assert ran == ["grow", 0, 1, "grow"]
    assert run["child-1"] == 1


# -- anywhere, anyhow


def scenario():
    dag = Dag("d", limit=2, resources={"db": 1})
    live: list[str] = []

    def worker(name, fails=0):
        left = [fails]

        async def work():
            live.append(name)
            try:
                await sleep(1)
                if left[0]:
                    left[0] -= 1
                    raise OSError(name)
            finally:
                live.remove(name)

        return work

    retry = Retry(on=OSError, backoff=Constant(1))
    dag.add(worker("a", fails=1), id="a", retry=retry)
    dag.add(worker("b"), id="b", resources={"db": 1})
    dag.add(worker("c"), id="c", after=["a"], timeout=5)
    dag.add(lambda: None, id="thread", after=["b"])

    async def work():
        await dag.run()

    def check():
        assert not live

    return Trial(work(), check)


@pytest.mark.promise("flow-cancel-native", "flow-cancel-scope", "flow-cancel-timeout")
def test_cancelled_anywhere_nothing_runs_afterwards():
    cancel_everywhere(scenario)
    cancel_everywhere(scenario, seed=4)


@pytest.mark.promise("flow-fail-everywhere")
@pytest.mark.parametrize("mode", ["fail_fast", "continue"])
def test_failures_anywhere(mode):
    def factory(fault):
        dag = Dag("d", limit=2)

        async def work(**more):
            fault()
            await yield_now()
            fault()

        for name, before in [("a", []), ("b", ["a"]), ("c", ["a"]), ("d", ["b", "c"])]:
            dag.add(work, id=name, after=before)
        dag.add(fault, id="thread", after=["a"])

        async def run():
            try:
                ended = await dag.run(mode=mode)
            except Exception as error:
                ended = run_of(error)
            states = ended.states
            assert set(states.values()) <= {OK, FAILED, SKIPPED, CANCELLED}
            for name, state in states.items():
                if state is FAILED:
                    ended[name]

        return Trial(run())

    fail_everywhere(factory, minimum=9)


async def test_cancelling_while_only_retries_wait():
    dag = Dag("d", limit=1)
    retry = Retry(on=OSError, backoff=Constant(1000))

    @dag.task(retry=retry)
    async def flaky():
        raise OSError

    with anyio.move_on_after(0.02) as scope:
        await dag.run()
    assert scope.cancelled_caught


@pytest.mark.real
async def test_a_synchronous_task_is_awaited_when_the_run_is_cancelled():
    dag, release, entered, ended = Dag("d"), threading.Event(), threading.Event(), []

    @dag.task
    def slow():
        entered.set()
        release.wait(10)
        ended.append(1)

    call = asyncio.get_running_loop().create_task(dag.run())
    while not entered.is_set():
        await anyio.sleep(0.001)
    call.cancel()
    await anyio.sleep(0.01)
    assert not call.done()
    release.set()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert ended == [1]


GRAPHS = st.lists(
    st.tuples(
        st.lists(st.integers(0, 20), max_size=3),  # which earlier tasks it needs
        st.integers(-1, 1),  # priority
        st.integers(0, 2),  # how much of the resource
        st.sampled_from(["ok", "ok", "ok", "fail", "flaky", "thread"]),
    ),
    min_size=1,
    max_size=10,
)


@given(GRAPHS, st.integers(1, 4), st.integers(0, 99), st.booleans())
def test_random_graphs_against_a_plain_evaluation(plan, limit, seed, free):
    expected: dict[str, Any] = {}
    for number, (needs, _, _, kind) in enumerate(plan):
        before = sorted({str(each % number) for each in needs}) if number else []
        if kind == "fail" or any(expected[each] is None for each in before):
            expected[str(number)] = None
        else:
            expected[str(number)] = [number, *(expected[each] for each in before)]

    async def run():
        dag = Dag("d", limit=limit, resources={"db": 2})
        running = 0

        def task(number, kind):
            fails = [kind == "flaky"]

            async def work(parts):
                nonlocal running
                running += 1
                assert running <= limit
                await sleep(number % 3)
                running -= 1
                if kind == "fail" or fails[0]:
                    fails[0] = False
                    raise OSError(number)
                return [number, *parts]

            return work if kind != "thread" else lambda parts: [number, *parts]

        handles: list[Any] = []
        for number, (needs, priority, db, kind) in enumerate(plan):
            before = sorted({each % number for each in needs}, key=str) if number else []
            handles.append(
                dag.add(
                    task(number, kind),
                    id=str(number),
                    args={"parts": [handles[each] for each in before]},
                    priority=priority,
                    resources={"db": db} if db else None,
                    retry=Retry(on=OSError, attempts=2, backoff=Constant(1)),
                )
            )
        keep = [each for number, each in enumerate(handles) if number % 2] if free else None
        ended = await dag.run(mode="continue", keep=keep)
        for number, handle in enumerate(handles):
            state = ended.states[str(number)]
            assert (state is OK) == (expected[str(number)] is not None)
            if state is OK and (keep is None or handle in keep):
                assert ended[handle] == expected[str(number)]
        if free:
            assert set(ended._values) <= {str(n) for n in range(len(plan)) if n % 2}

    simulate(run, seed=seed)


@pytest.mark.promise("flow-seeds", "flow-no-leaks")
def test_the_same_result_under_many_seeds():
    async def run():
        dag = Dag("d", limit=3)

        @dag.task(retry=Retry(on=OSError, backoff=Constant(1)))
        async def a():
            await yield_now()
            return 1

        for name in "bcd":
            dag.add(lambda a, name=name: f"{name}{a}", id=name)

        @dag.task
        async def last(b, c, d):
            return b + c + d

        ended = await dag.run()
        assert ended[last] == "b1c1d1"

    explore(run, range(200))
