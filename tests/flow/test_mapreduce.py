"""Map and reduce: the same result as functools.reduce, on every engine, in bounded memory."""

from __future__ import annotations

import asyncio
import functools
import operator
import os
import signal
from collections import Counter
from dataclasses import dataclass
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.core.clock import sleep, yield_now
from aiopatterns.core.errors import JobCancelledError, WorkerCrashedError
from aiopatterns.flow.executors import Inline, Processes, Threads
from aiopatterns.flow.mapping import stream_map
from aiopatterns.flow.mapreduce import map_reduce
from aiopatterns.testing import Trial, cancel_everywhere, explore, fail_everywhere, simulate


def square(x):
    return x * x


def append(total, value):
    total.append(value)
    return total


def join(left, right):
    return left + right


def odd(x):
    return x % 2


def refuse_seven(x):
    if x == 7:
        raise ValueError("seven")
    return x


def poison(x):
    if x == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def count_words(line):
    return Counter(line.split())


async def async_square(x):
    await sleep((7 * x) % 5)
    return x * x


async def stream(n):
    for i in range(n):
        yield i


@pytest.mark.parametrize("engine", [Inline, lambda: Threads(2)], ids=["inline", "threads"])
@pytest.mark.parametrize("chunk", [None, 1, 3, 1000])
@pytest.mark.parametrize("combine", [None, join])
async def test_like_functools_reduce(engine, chunk, combine):
    for n in (0, 1, 10):
        got = await map_reduce(
            range(n), square, append, initial=list, chunk=chunk, combine=combine, executor=engine()
        )
        assert got == [square(i) for i in range(n)]


@pytest.mark.real
async def test_in_processes():
    lines = ["a b a", "b", "c a"] * 20
    async with Processes(2) as pool:
        words = await map_reduce(
            lines, count_words, operator.add, initial=Counter, combine=operator.add, executor=pool
        )
        assert words == Counter(a=60, b=40, c=20)
        squares = await map_reduce(stream(50), square, append, initial=list, executor=pool)
        assert squares == [i * i for i in range(50)]
        with pytest.raises(ValueError, match="seven") as caught:
            await map_reduce(range(20), refuse_seven, append, initial=list, executor=pool, chunk=5)
        assert any("while mapping item 7" in note for note in caught.value.__notes__)
        assert any("items 5 to 9" in note for note in caught.value.__notes__)
        with pytest.raises(TypeError, match=r"argument 1 of map_chunk cannot be sent.*lambda"):
            await map_reduce(range(9), lambda x: x, append, initial=list, executor=pool)
        with pytest.raises(WorkerCrashedError) as crashed:
            await map_reduce(range(20), poison, append, initial=list, executor=pool, chunk=5)
        assert "items 5 to 9" in crashed.value.__notes__[0]
        assert await pool.run(square, 3) == 9


@given(
    st.lists(st.integers(-50, 50), max_size=40),
    st.one_of(st.none(), st.integers(1, 9)),
    st.booleans(),
    st.booleans(),
    st.integers(0, 99),
)
def test_against_a_plain_model(items, chunk, combined, threads, seed):
    async def run():
        executor = Threads(2) if threads else Inline()
        options = {"initial": list, "chunk": chunk, "combine": join if combined else None}
        whole = await map_reduce(items, square, append, executor=executor, **options)
        assert whole == functools.reduce(append, map(square, items), [])
        executor = Threads(3) if threads else Inline(2)
        parted = await map_reduce(items, square, append, executor=executor, group_by=odd, **options)
        expected: dict[int, list[int]] = {}
        for item in items:
            expected.setdefault(odd(item), []).append(square(item))
        assert parted == expected
        assert list(parted) == list(expected)

    simulate(run, seed=seed)


def test_async_mappers_run_side_by_side_and_fold_in_order():
    async def run():
        running = most = 0

        async def mapper(x):
            nonlocal running, most
            running += 1
            most = max(most, running)
            value = await async_square(x)
            running -= 1
            return value

        async def reducer(total, value):
            await yield_now()
            return [*total, value]

        got = await map_reduce(stream(30), mapper, reducer, initial=list, executor=Inline(4))
        assert got == [i * i for i in range(30)]
        assert most == 4

    explore(run, range(25))


@pytest.mark.promise("flow-seeds")
def test_the_result_is_the_same_under_many_seeds():
    async def run():
        got = await map_reduce(
            range(12), square, append, initial=list, chunk=2, executor=Threads(3)
        )
        assert got == [i * i for i in range(12)]

    explore(run, range(200))


def test_memory_is_bounded_behind_a_slow_head():
    async def run():
        pulled = 0

        def source():
            nonlocal pulled
            for i in range(1000):
                pulled = i + 1
                yield i

        async def mapper(x):
            if x == 0:
                await sleep(100)
                assert pulled <= 8, "the window of two chunks for each worker"
            await yield_now()
            return x

        total = await map_reduce(
            source(), mapper, operator.add, initial=int, chunk=1, executor=Inline(4)
        )
        assert total == sum(range(1000))

    simulate(run)


@pytest.mark.parametrize("where", ["mapper", "reducer", "group_by", "source", "combine", "initial"])
async def test_errors_leave_bare_with_a_note(where):
    def spoil(name, fn):
        def spoiled(*args):
            if name == where:
                raise LookupError(name)
            return fn(*args)

        return spoiled

    def source():
        yield from range(5)
        if where == "source":
            raise LookupError("source")

    for executor in (Inline(), Threads(1)):
        with pytest.raises(LookupError, match=where) as caught:
            await map_reduce(
                source(),
                spoil("mapper", square),
                spoil("reducer", append),
                initial=spoil("initial", list),
                combine=join if where != "combine" else spoil("combine", join),
                group_by=spoil("group_by", lambda x: 0),
                executor=executor if where != "combine" else Threads(1),
                chunk=2,
            )
        notes = getattr(caught.value, "__notes__", [])
        assert where == "combine" or "map_reduce" in notes[0]


@dataclass(frozen=True)
class Frozen(Exception):
    code: int


def freeze(x):
    raise Frozen(x)


async def test_an_error_that_takes_no_notes_leaves_as_it_is():
    with pytest.raises(Frozen):
        await map_reduce([1], freeze, append, initial=list)


async def test_what_is_no_exception_leaves_bare():
    class Alarm(BaseException):
        pass

    async def ring(x):
        raise Alarm

    with pytest.raises(Alarm):
        await map_reduce([1], ring, append, initial=list)


async def test_errors_in_the_cleanup_of_other_chunks_are_noted():
    async def mapper(x):
        if x:
            await yield_now()
            raise LookupError("first")
        try:
            await anyio.sleep_forever()
        finally:
            raise OSError("cleanup")

    with pytest.raises(LookupError, match="first") as caught:
        await map_reduce([0, 1], mapper, append, initial=list, chunk=1)
    assert any("after that: OSError('cleanup')" in note for note in caught.value.__notes__)


async def test_a_source_may_hold_a_scope_or_tasks():
    async def quick_square(x):
        await yield_now()
        return x * x

    async def source():
        async with stream_map(quick_square, range(10), limit=3) as results:
            async for each in results:
                with anyio.fail_after(100):
                    yield each

    total = await map_reduce(source(), quick_square, operator.add, initial=int, chunk=2)
    assert total == sum(i**4 for i in range(10))


@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_a_generator_that_is_not_read_to_its_end_is_closed(kind):
    closed = []

    async def flowing():
        try:
            for i in range(1000):
                yield i
        finally:
            await yield_now()
            closed.append("async")

    def lying():
        try:
            yield from range(1000)
        finally:
            closed.append("plain")

    source: Any = flowing() if kind == "async" else lying()
    with pytest.raises(ValueError, match="seven"):
        await map_reduce(source, refuse_seven, append, initial=list, chunk=1)
    assert closed == [kind]


@pytest.mark.parametrize("kind", ["async", "plain"])
async def test_a_source_that_fails_when_it_is_closed(kind):
    async def flowing():
        try:
            for i in range(1000):
                yield i
        finally:
            raise OSError("disk")

    def lying():
        try:
            yield from range(1000)
        finally:
            raise OSError("disk")

    source: Any = flowing() if kind == "async" else lying()
    with pytest.raises(ValueError, match="seven") as caught:
        await map_reduce(source, refuse_seven, append, initial=list, chunk=1)
    assert any("after that: OSError('disk')" in note for note in caught.value.__notes__)


async def test_a_mapper_that_cancels_itself_has_failed():
    async def quits(x):
        raise asyncio.CancelledError

    with pytest.raises(JobCancelledError, match="cancelled itself"):
        await map_reduce(range(5), quits, append, initial=list)


async def test_other_chunks_wait_for_an_async_fold_under_way():
    folding = most = 0

    async def reducer(total, value):
        nonlocal folding, most
        folding += 1
        most = max(most, folding)
        await yield_now()
        await yield_now()
        folding -= 1
        return [*total, value]

    async def mapper(x):
        await yield_now()
        return x

    got = await map_reduce(range(9), mapper, reducer, initial=list, chunk=1, executor=Inline(3))
    assert got == list(range(9))
    assert most == 1


async def test_an_open_executor_is_used_and_left_open():
    async with Threads(1) as pool:
        assert await map_reduce([1, 2], square, operator.add, initial=int, executor=pool) == 5
        assert pool.statistics().done == 2
        assert await pool.run(square, 2) == 4


async def test_awaitables_that_nobody_could_foresee():
    hidden: Any = lambda x: async_square(0)
    assert await map_reduce([1], hidden, operator.add, initial=int) == 0
    with pytest.raises(TypeError, match="mapper gave an awaitable"):
        await map_reduce([1], hidden, operator.add, initial=int, executor=Threads(1))


async def no_function(*args):
    """An async function, for parameters that take none."""


@pytest.mark.promise("flow-bad-input")
@pytest.mark.parametrize(
    ("changed", "error", "text"),
    [
        ({"source": 3}, TypeError, "source must be an iterable"),
        ({"mapper": 3}, TypeError, "mapper must be a function"),
        ({"reducer": None}, TypeError, "reducer must be a function"),
        ({"initial": 0}, TypeError, "initial must be a function"),
        ({"initial": no_function}, TypeError, "initial must be a plain function"),
        ({"combine": 3}, TypeError, "combine must be a function"),
        ({"combine": no_function}, TypeError, "combine must be a plain function"),
        ({"group_by": no_function}, TypeError, "group_by must be a plain function"),
        ({"chunk": 0}, ValueError, "chunk must be a whole number >= 1"),
        ({"executor": 3}, TypeError, "executor must be an executor such as"),
        ({"executor": Threads}, TypeError, "executor must be an executor, as in"),
        (
            {"mapper": no_function, "executor": Threads(1)},
            TypeError,
            "mapper is asynchronous.*executor=Inline",
        ),
        (
            {"reducer": no_function, "combine": join, "executor": Threads(1)},
            TypeError,
            "reducer is asynchronous",
        ),
    ],
)
async def test_bad_input(changed, error, text):
    if changed.get("executor") is Threads:
        text = "executor must be an executor such as"
    call: dict[str, Any] = {"source": [], "mapper": square, "reducer": append, "initial": list}
    with pytest.raises(error, match=text):
        await map_reduce(**(call | changed))


async def test_an_async_reducer_may_run_here_while_the_mapper_is_elsewhere():
    async def reducer(total, value):
        await yield_now()
        return total + value

    assert await map_reduce([1, 2], square, reducer, initial=int, executor=Threads(1)) == 5


def scenario():
    live, closed = [], []

    async def source():
        try:
            for i in range(4):
                await yield_now()
                yield i
        finally:
            await yield_now()
            closed.append(1)

    async def mapper(x):
        live.append(x)
        try:
            await yield_now()
            return x
        finally:
            live.remove(x)

    items = source()

    async def work():
        await map_reduce(items, mapper, operator.add, initial=int, chunk=1, executor=Inline(2))

    def check():
        assert not live
        assert closed or items.ag_frame is None or items.ag_frame.f_lasti < 0

    return Trial(work(), check)


@pytest.mark.promise("flow-cancel-native", "flow-cancel-scope", "flow-cancel-timeout")
def test_cancelled_anywhere_nothing_runs_afterwards():
    cancel_everywhere(scenario, kinds=("native", "scope", "timeout", "native-twice"))
    cancel_everywhere(scenario, seed=3)


@pytest.mark.promise("flow-fail-everywhere")
def test_failures_anywhere():
    def factory(fault):
        def faulty(fn):
            def call(*args):
                fault()
                return fn(*args)

            return call

        async def work():
            await map_reduce(
                range(4), faulty(square), faulty(append), initial=faulty(list), chunk=2
            )

        return Trial(work())

    fail_everywhere(factory, minimum=9)


async def test_cancelling_wakes_workers_that_wait_for_room():
    async def mapper(x):
        await (anyio.sleep_forever() if x == 0 else yield_now())

    with anyio.move_on_after(0.02) as scope:
        await map_reduce(range(100), mapper, append, initial=list, chunk=1, executor=Inline(2))
    assert scope.cancelled_caught


@pytest.mark.real
async def test_cancelling_ends_the_processes():
    async with Processes(1) as pool:
        call = asyncio.get_running_loop().create_task(
            map_reduce([30], _nap, append, initial=list, executor=pool)
        )
        await anyio.sleep(0.3)
        call.cancel()
        with pytest.raises(asyncio.CancelledError):
            await call
        assert await pool.run(square, 2) == 4


def _nap(seconds):
    import time

    time.sleep(seconds)
