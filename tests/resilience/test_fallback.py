"""Fallbacks: what is replaced, by what, and who is told."""

from __future__ import annotations

from functools import partial
from typing import Any

import anyio
import pytest

from aiopatterns.core.clock import sleep
from aiopatterns.core.errors import BulkheadFullError, TimeoutExceededError
from aiopatterns.resilience.fallback import Degraded, Fallback, FallbackUsed
from aiopatterns.resilience.stack import Stack
from aiopatterns.resilience.timeout import Timeout
from aiopatterns.testing import (
    Trial,
    cancel_everywhere,
    capture_events,
    explore,
    fail_everywhere,
)


def wrong(value: object) -> Any:
    """Hide from the type checker what it would refuse."""
    return value


async def fail(error: BaseException | type[BaseException] = OSError) -> Any:
    raise error


async def give(value: object) -> Any:
    return value


async def hang() -> Any:
    await anyio.sleep_forever()


async def async_answer(error):
    await sleep(0)
    return ("async", error)


class AsyncAnswer:
    async def __call__(self, error):
        return ("object", error)


async def test_a_value_takes_the_place_of_an_error():
    assert await Fallback(7, on=OSError).call(fail) == 7
    assert await Fallback(None, on=OSError).call(fail, ConnectionError()) is None
    assert await Fallback(7, on=OSError).call(give, 1) == 1
    assert await Fallback(7, on=(KeyError, OSError)).call(fail, KeyError("x")) == 7


@pytest.mark.parametrize(
    ("answer", "tag"),
    [
        (lambda e: ("plain", e), "plain"),
        (async_answer, "async"),
        (AsyncAnswer(), "object"),
        (partial(async_answer), "async"),
    ],
    ids=range(4),
)
async def test_a_function_receives_the_error(answer, tag):
    error = OSError("this one")
    assert await Fallback(answer, on=OSError).call(fail, error) == (tag, error)


async def test_other_errors_pass_untouched():
    error = ValueError("other")
    with pytest.raises(ValueError, match="other") as caught:
        await Fallback(7, on=OSError).call(fail, error)
    assert caught.value is error
    with pytest.raises(KeyboardInterrupt):
        await Fallback(7, on=lambda e: True).call(fail, KeyboardInterrupt)


async def test_refusals_are_errors_like_others():
    assert await Fallback(7, on=Exception).call(fail, BulkheadFullError()) == 7
    assert await Fallback(7, on=BulkheadFullError).call(fail, BulkheadFullError()) == 7
    with pytest.raises(BulkheadFullError):
        await Fallback(7, on=OSError).call(fail, BulkheadFullError())


async def test_a_group_is_replaced_if_all_in_it_are_meant():
    def group(*errors):
        return ExceptionGroup("several", errors)

    fallback = Fallback(7, on=OSError)
    assert await fallback.call(fail, group(OSError(), TimeoutError())) == 7
    with pytest.raises(ExceptionGroup):
        await fallback.call(fail, group(OSError(), ValueError()))
    assert fallback.matches(group(OSError()))


async def test_a_result_can_be_as_bad_as_an_error():
    given: list[object] = []
    fallback = Fallback(given.append, on=OSError, on_result=lambda r: r is None)
    assert await fallback.call(give, 1) == 1
    await fallback.call(give, None)
    assert given == [None]
    error = OSError()
    await fallback.call(fail, error)
    assert given == [None, error]


async def test_an_error_of_the_function_leaves_with_the_first_as_context():
    first, second = OSError("first"), KeyError("second")

    async def broken(error):
        raise second

    with pytest.raises(KeyError) as caught:
        await Fallback(broken, on=OSError).call(fail, first)
    assert caught.value is second
    assert second.__context__ is first


async def test_an_error_of_the_predicates_leaves():
    with pytest.raises(ZeroDivisionError):
        await Fallback(7, on=lambda e: bool(1 / 0)).call(fail)
    with pytest.raises(ZeroDivisionError):
        await Fallback(7, on=OSError, on_result=lambda r: bool(1 / 0)).call(give, 1)


async def test_no_cancellation_is_ever_replaced_or_shown():
    shown: list[object] = []

    def show(error):
        shown.append(error)
        return True

    fallback = Fallback(show, on=show)
    with anyio.CancelScope() as scope:
        scope.cancel()
        await fallback.call(hang)
    assert scope.cancelled_caught
    assert not shown


async def test_a_timeout_inside_is_replaced_and_one_outside_is_not():
    late = Stack(Fallback("late", on=TimeoutError), Timeout(0.001))
    assert await late.call(hang) == "late"
    with pytest.raises(TimeoutExceededError):
        await Stack(Timeout(0.001), Fallback("late", on=TimeoutError)).call(hang)


async def test_the_event():
    error = OSError()
    with capture_events() as events:
        await Fallback(7, on=OSError).call(fail, error)
        await Fallback(7, on=OSError, on_result=lambda r: not r).call(give, 0)
        await Fallback(7, on=OSError).call(give, 1)
    assert events == [FallbackUsed(error), FallbackUsed(None)]
    assert events[0].name == "aiopatterns.fallback.used"


async def test_degraded_collects_what_was_replaced():
    first, second = OSError("a"), OSError("b")
    fallback = Fallback(7, on=OSError, on_result=lambda r: r is None)
    with Degraded() as outer:
        assert not outer
        await fallback.call(give, 1)
        assert not outer
        with Degraded() as inner:
            await fallback.call(fail, first)
            await fallback.call(give, None)
        await fallback.call(fail, second)
    await fallback.call(fail)
    assert inner.errors == (first, None)
    assert outer.errors == (first, None, second)
    assert inner
    assert outer


async def test_degraded_sees_the_tasks_inside_and_no_others():
    fallback = Fallback(7, on=OSError)

    async def request(fails, found):
        with Degraded() as degraded:
            async with anyio.create_task_group() as group:
                for _ in range(fails):
                    group.start_soon(fallback.call, fail)
        found.append(len(degraded.errors))

    found: list[int] = []
    async with anyio.create_task_group() as group:
        for fails in range(4):
            group.start_soon(request, fails, found)
    assert sorted(found) == [0, 1, 2, 3]


def test_degraded_is_entered_once():
    degraded = Degraded()
    degraded.__exit__(None, None, None)  # harmless
    with degraded, pytest.raises(RuntimeError, match="make one for each block"):
        degraded.__enter__()


async def items(*given):
    for item in given:
        if isinstance(item, BaseException):
            raise item
        yield item


async def async_items(error):
    yield "async"
    yield str(error)


async def coroutine_of_items(error):
    return [str(error)]


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        ([1, 2], [1, 2]),
        ((), []),
        (lambda e: iter([str(e)]), ["x"]),
        (async_items, ["async", "x"]),
        (coroutine_of_items, ["x"]),
    ],
    ids=range(5),
)
async def test_a_stream_that_fails_before_its_first_item_is_replaced(answer, expected):
    stream = Fallback(answer, on=OSError)(items)
    with capture_events() as events, Degraded() as degraded:
        assert [item async for item in stream(OSError("x"), 3)] == expected
    assert [event.name for event in events] == ["aiopatterns.fallback.used"]
    assert len(degraded.errors) == 1


async def test_a_stream_that_fails_later_or_otherwise_is_not_replaced():
    stream = Fallback([7], on=OSError, on_result=lambda r: True)(items)
    assert [item async for item in stream(1, 2)] == [1, 2]
    assert [item async for item in stream()] == []
    got = []
    with pytest.raises(OSError, match="late"):
        async for item in stream(1, OSError("late")):
            got.append(item)
    assert got == [1]
    with pytest.raises(ValueError, match="other"):
        await anext(stream(ValueError("other")))


async def test_the_answer_to_a_stream_is_closed_if_it_was_made_for_it():
    closed = []

    async def other(error):
        try:
            yield 1
            yield 2
        finally:
            closed.append(True)

    stream = Fallback(other, on=OSError)(items)(OSError())
    assert await anext(stream) == 1
    await stream.aclose()
    assert closed == [True]

    send, receive = anyio.create_memory_object_stream[int](2)
    async with send, receive:
        send.send_nowait(5)
        shared = Fallback(receive, on=OSError)(items)(OSError())
        assert await anext(shared) == 5
        await shared.aclose()
        send.send_nowait(6)
        assert await receive.receive() == 6


async def test_an_error_of_a_stream_that_answers_has_the_first_one_as_context():
    first = OSError()

    async def fails(error):
        raise ValueError("no other")
        yield error

    stream = Fallback(fails, on=OSError)(items)(first)
    with pytest.raises(ValueError, match="no other") as caught:
        await anext(stream)
    assert caught.value.__context__ is first


async def test_a_stream_may_be_answered_by_nothing():
    assert [each async for each in Fallback([], on=OSError)(items)(OSError())] == []


async def test_a_stream_needs_an_answer_of_items():
    with pytest.raises(TypeError, match="the answer of a fallback for a stream must be"):
        await anext(Fallback(7, on=OSError)(items)(OSError()))


@pytest.mark.promise("resilience-cancel-everywhere")
def test_cancelled_anywhere_it_leaves_nothing():
    def factory():
        async def work():
            async def broken():
                await sleep(1)
                raise OSError

            with Degraded():
                await Fallback(async_answer, on=OSError).call(broken)
                stream = Fallback(async_items, on=OSError)(items)
                async for _ in stream(OSError()):
                    await sleep(1)

        return work()

    cancel_everywhere(factory, kinds=("native", "scope", "timeout", "native-twice"), minimum=4)


def test_faults_anywhere_leave_nothing():
    def factory(fault):
        async def broken():
            fault()
            await sleep(0)
            raise OSError

        async def answer(error):
            fault()
            await sleep(0)
            fault()
            return 1

        def meant(error):
            fault()
            return isinstance(error, OSError)

        return Trial(Fallback(answer, on=meant).call(broken))

    fail_everywhere(factory, minimum=4)


@pytest.mark.promise("resilience-seeds")
def test_many_callers_share_one_fallback():
    async def scenario():
        fallback = Fallback(lambda e: -e.args[0], on=OSError)
        answers = {}

        async def caller(number):
            async def work():
                await sleep(0.1 * (number % 3))
                if number % 2:
                    raise OSError(number)
                return number

            answers[number] = await fallback.call(work)

        async with anyio.create_task_group() as group:
            for number in range(8):
                group.start_soon(caller, number)
        assert answers == {n: -n if n % 2 else n for n in range(8)}

    explore(scenario, range(200))


@pytest.mark.promise("resilience-bad-input")
def test_bad_input_is_one_clear_error():
    async def predicate(error):
        return True

    with pytest.raises(TypeError, match=r"^on must be an Exception type"):
        Fallback(7, on=wrong(3))
    with pytest.raises(TypeError, match=r"^on must be a plain function"):
        Fallback(7, on=wrong(predicate))
    with pytest.raises(TypeError, match=r"^on_result must be a function, not 3"):
        Fallback(7, on=OSError, on_result=wrong(3))
    with pytest.raises(TypeError, match=r"^on_result must be a plain function"):
        Fallback(7, on=OSError, on_result=wrong(predicate))
    assert repr(Fallback([], on=OSError)) == "Fallback([])"
