"""Scatter and gather: who answers, who fails, who is missing, and when the wait ends."""

from __future__ import annotations

import asyncio
from typing import Any

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.errors import JobCancelledError, QuorumError
from aiopatterns.flow.gathering import scatter_gather
from aiopatterns.testing import Trial, cancel_everywhere, explore, fail_everywhere, simulate


def answer(value: Any, after: float = 0.0) -> Any:
    async def call() -> Any:
        await sleep(after)
        return value

    return call


def failure(error: Exception, after: float = 0.0) -> Any:
    async def call() -> Any:
        await sleep(after)
        raise error

    return call


async def test_a_mapping_gives_values_by_key():
    got = await scatter_gather({"b": answer(2), "a": answer(1)})
    assert got.values == {"b": 2, "a": 1}
    assert list(got.values) == ["b", "a"]
    assert got.complete
    assert (got.errors, got.missing, got.merged) == ({}, (), None)
    assert got.elapsed >= 0


async def test_a_sequence_gives_values_by_position():
    error = ValueError("x")
    got = await scatter_gather([answer("a"), failure(error), answer("c")])
    assert got.values == {0: "a", 2: "c"}
    assert got.errors == {1: error}
    assert not got.complete


async def test_merge_gets_the_values():
    got = await scatter_gather([answer(1), answer(2)], merge=lambda values: sum(values.values()))
    assert got.merged == 3


async def test_nothing_asked_is_complete():
    nothing: dict[str, Any] = {}
    got = await scatter_gather(nothing)
    assert got.complete
    assert got.values == {}


def test_time_over_leaves_the_slow_ones_missing():
    async def scenario():
        got = await scatter_gather(
            {"fast": answer(1, 1), "slow": answer(2, 9), "bad": failure(OSError(), 1)}, timeout=3
        )
        assert monotonic() == 3
        assert got.values == {"fast": 1}
        assert list(got.errors) == ["bad"]
        assert got.missing == ("slow",)
        assert got.elapsed == 3
        assert not got.complete

    simulate(scenario)


def test_enough_answers_end_the_wait():
    async def scenario():
        ended = []

        async def slow():
            try:
                await sleep(100)
            finally:
                ended.append("slow")

        got = await scatter_gather(
            {"a": answer(1, 3), "b": failure(OSError(), 1), "slow": slow, "c": answer(3, 2)}, need=2
        )
        assert monotonic() == 3
        assert got.values == {"a": 1, "c": 3}
        assert list(got.errors) == ["b"]
        assert got.missing == ("slow",)
        assert ended == ["slow"]

    simulate(scenario)


def test_a_quorum_out_of_reach_is_raised_at_once():
    async def scenario():
        error = OSError("b is down")
        with pytest.raises(QuorumError, match=r"1 of 2 needed.*'b' failed.*'c' did not") as caught:
            await scatter_gather(
                {"a": answer(1, 1), "b": failure(error, 2), "c": answer(1, 9)}, need=2, timeout=5
            )
        assert monotonic() == 5
        assert (caught.value.got, caught.value.need) == (1, 2)
        assert caught.value.errors == {"b": error}
        assert caught.value.__cause__ is error
        with pytest.raises(QuorumError, match="0 of 2"):
            await scatter_gather([failure(error, 1), answer(1, 9)], need=2)
        assert monotonic() == 6

    simulate(scenario)


def test_an_answer_that_comes_after_the_end_does_not_count():
    async def stubborn():
        try:
            await sleep(50)
        except asyncio.CancelledError:
            return "late"

    async def scenario():
        got = await scatter_gather([answer(1, 1), stubborn], need=1)
        assert got.values == {0: 1}
        assert got.missing == (1,)

    simulate(scenario)


async def test_a_call_that_cancels_itself_has_failed():
    async def quits():
        raise asyncio.CancelledError

    got = await scatter_gather({"a": quits, "b": answer(1)})
    assert got.values == {"b": 1}
    assert isinstance(got.errors["a"], JobCancelledError)


@pytest.mark.promise("flow-bad-input")
@pytest.mark.parametrize(
    ("calls", "options", "error", "text"),
    [
        (3, {}, TypeError, "calls must be a mapping or a sequence"),
        ("ab", {}, TypeError, "calls must be a mapping or a sequence"),
        ({"a": 3}, {}, TypeError, r"calls\['a'\] must be an async function without arguments"),
        ([answer(1), None], {}, TypeError, r"calls\[1\] must be an async function"),
        ([answer(1)], {"need": 2}, ValueError, "need must be at most the number of calls"),
        ([answer(1)], {"need": 0}, ValueError, "need must be a whole number >= 1"),
        ([answer(1)], {"timeout": 0}, ValueError, "timeout must be"),
        ([answer(1)], {"timeout": float("nan")}, ValueError, "timeout must be a finite"),
        ([answer(1)], {"merge": 3}, TypeError, "merge must be a function"),
        ([answer(1)], {"merge": answer(1)}, TypeError, "merge must be a plain function"),
    ],
)
async def test_bad_input(calls, options, error, text):
    with pytest.raises(error, match=text):
        await scatter_gather(calls, **options)


async def test_a_plain_function_is_refused_before_anything_runs():
    ran = []

    def plain() -> None:
        ran.append(1)

    calls: Any = {"size": plain}
    with pytest.raises(
        TypeError, match=r"calls\['size'\] must be an async function, not the plain"
    ):
        await scatter_gather(calls)
    assert not ran


async def test_a_call_that_is_not_async_is_named():
    calls: Any = {"size": lambda: 3}
    got = await scatter_gather(calls)
    assert "calls['size'] must be an async function; it gave 3" in str(got.errors["size"])


async def test_what_merge_raises_leaves_bare():
    def broken(values):
        raise KeyError("merge")

    with pytest.raises(KeyError, match="merge"):
        await scatter_gather([answer(1)], merge=broken)


async def test_what_is_no_exception_leaves_bare():
    class Alarm(BaseException):
        pass

    async def ring():
        raise Alarm

    with pytest.raises(Alarm):
        await scatter_gather([ring, answer(1, after=9)])


def scenario():
    live = []

    async def call():
        live.append(1)
        try:
            await sleep(1)
            await sleep(1)
        finally:
            live.pop()

    async def work():
        await scatter_gather([call, call, call], need=2, timeout=10)

    def check():
        assert not live

    return Trial(work(), check)


@pytest.mark.promise("flow-cancel-native", "flow-cancel-scope", "flow-cancel-timeout")
def test_cancelled_anywhere_nothing_runs_afterwards():
    cancel_everywhere(scenario, kinds=("native", "scope", "timeout", "native-twice"))
    cancel_everywhere(scenario, seed=3)


@pytest.mark.promise("flow-fail-everywhere")
def test_failures_anywhere():
    def factory(fault):
        async def call():
            fault()
            await sleep(1)
            fault()

        async def work():
            got = await scatter_gather([call] * 3)
            assert len(got.values) + len(got.errors) == 3
            for error in got.errors.values():
                raise error

        return Trial(work())

    fail_everywhere(factory, minimum=6)


@given(
    st.lists(st.tuples(st.booleans(), st.integers(1, 9)), max_size=6),
    st.integers(0, 6),
    st.sampled_from([None, 5]),
    st.integers(0, 50),
)
def test_against_a_plain_model(plan, need, timeout, seed):
    need = min(need, len(plan)) or None

    async def run():
        calls = [answer(i, t) if ok else failure(OSError(i), t) for i, (ok, t) in enumerate(plan)]
        try:
            got = await scatter_gather(calls, need=need, timeout=timeout and timeout + 0.5)
        except QuorumError as error:
            assert need is not None
            in_time = [ok for ok, t in plan if timeout is None or t <= timeout]
            assert sum(in_time) < need
            assert error.got < need
            return
        assert set(got.values) | set(got.errors) | set(got.missing) == set(range(len(plan)))
        assert len(got.values) + len(got.errors) + len(got.missing) == len(plan)
        if need is None:
            expected = {i for i, (_, t) in enumerate(plan) if timeout is None or t <= timeout}
            assert set(got.values) == {i for i in expected if plan[i][0]}
            assert set(got.errors) == {i for i in expected if not plan[i][0]}
        else:
            assert len(got.values) == need

    simulate(run, seed=seed)


@pytest.mark.promise("flow-seeds")
def test_every_key_has_one_fate_under_many_seeds():
    async def scatter():
        calls = [answer(i, i % 3) for i in range(5)] + [failure(OSError(), 1)]
        got = await scatter_gather(calls, need=3)
        assert len(got.values) == 3
        fates = [*got.values, *got.errors, *got.missing]
        assert sorted(fates) == list(range(6))

    explore(scatter, range(200))


@pytest.mark.promise("flow-no-leaks")
async def test_no_task_is_left():
    async with anyio.create_task_group() as group:
        await scatter_gather([answer(1), answer(2, 0.001)], need=1)
        assert not group.cancel_scope.cancel_called
