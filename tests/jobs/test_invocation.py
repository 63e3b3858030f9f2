"""One attempt: arguments made, middleware around it, the function on the loop or in a thread."""

from __future__ import annotations

import sys
import threading
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial, wraps

import pytest
from anyio import from_thread

from aiopatterns.core.clock import sleep
from aiopatterns.core.errors import CodecError, JobError
from aiopatterns.jobs.context import Context, hops_onward
from aiopatterns.jobs.invocation import Invocation
from aiopatterns.jobs.signature import Signature
from aiopatterns.testing import Trial, cancel_everywhere, fail_everywhere

PLACE: ContextVar[str] = ContextVar("place", default="nowhere")


@dataclass
class Row:
    id: int


def context(**given):
    return Context(**{"job_id": "1", "name": "f", "report": lambda fraction: None, **given})


def invocation(fn, *, batch=False):
    return Invocation(Signature(fn, batch=batch), fn, batch=batch)


async def run(fn, *args, middlewares=(), ctx=None, **kwargs):
    return await invocation(fn).run(ctx or context(), args, kwargs, middlewares)


async def test_an_asynchronous_function_runs_on_this_loop():
    async def fn(a: int, *, b: int = 2) -> tuple[int, int, int]:
        await sleep(0)
        return a, b, threading.get_ident()

    assert await run(fn, 1) == (1, 2, threading.get_ident())
    assert await run(fn, 1, b=3) == (1, 3, threading.get_ident())


@pytest.mark.real
async def test_a_synchronous_function_runs_in_a_thread():
    def fn(ctx: Context, a: int) -> tuple[int, int, str, int]:
        from_thread.run(ctx.progress, 0.5)
        return a, threading.get_ident(), PLACE.get(), hops_onward()

    PLACE.set("here")
    told: list[float] = []
    a, thread, place, hops = await run(fn, 1, ctx=context(report=told.append, hops=4))
    assert (a, place, hops, told) == (1, "here", 5, [0.5])
    assert thread != threading.get_ident()


async def test_a_wrapper_that_hides_a_coroutine_is_awaited():
    async def inner(a: int) -> int:
        await sleep(0)
        return a + 1

    @wraps(inner)
    def wrapper(*args):
        return inner(*args)

    assert await run(wrapper, 1) == 2
    assert await run(partial(inner), 1) == 2


async def test_the_context_comes_first_if_it_is_wanted():
    async def fn(ctx: Context, a: int) -> tuple[str, int]:
        return ctx.job_id, a

    assert await run(fn, 7, ctx=context(job_id="x")) == ("x", 7)


async def test_middleware_is_around_it_outermost_first():
    trace: list[object] = []

    async def outer(ctx, call_next):
        trace.append("outer")
        value = await call_next(ctx)
        trace.append(value)
        return f"outer({value})"

    async def inner(ctx, call_next):
        trace.append("inner")
        return await call_next(context(job_id="changed"))

    async def fn(ctx: Context) -> str:
        trace.append(ctx.job_id)
        return "value"

    assert await run(fn, middlewares=(outer, inner)) == "outer(value)"
    assert trace == ["outer", "inner", "changed", "value"]


async def test_middleware_may_answer_itself_and_may_raise():
    async def never(ctx, call_next):
        return "cached"

    async def refuse(ctx, call_next):
        raise PermissionError

    async def fn() -> None:
        pytest.fail("never called")

    assert await run(fn, middlewares=(never,)) == "cached"
    with pytest.raises(PermissionError):
        await run(fn, middlewares=(refuse,))


async def test_hops_are_bound_while_it_runs_and_not_after():
    async def fn() -> int:
        return hops_onward()

    async def broken() -> None:
        raise OSError

    assert await run(fn, ctx=context(hops=2)) == 3
    with pytest.raises(OSError):
        await run(broken, ctx=context(hops=2))
    assert hops_onward() == 0


def test_arguments_are_made():
    async def fn(row: Row, n: int = 0) -> None: ...

    async def load(rows: list[Row]) -> None: ...

    fn.__annotations__["row"], load.__annotations__["rows"] = Row, list[Row]
    assert invocation(fn).convert([{"id": 1}], {"n": 2}) == ([Row(1)], {"n": 2})
    made = invocation(load, batch=True).convert([[{"id": 1}, {"id": 2}]], {})
    assert made == ([[Row(1), Row(2)]], {})
    with pytest.raises(CodecError, match="argument 'rows'"):
        invocation(load, batch=True).convert([[{"id": 1}, {"no": 2}]], {})


async def batch(value, *items):
    async def fn(rows):
        assert isinstance(rows, list)
        return value

    return await invocation(fn, batch=True).run(context(), [list(items)], {}, ())


async def test_a_batch_has_a_result_for_each_item():
    assert await batch(None, 1, 2, 3) == [None, None, None]
    assert await batch(["a", "b"], 1, 2) == ["a", "b"]
    with pytest.raises(ValueError, match="a batch of 2 items returned 1 results"):
        await batch(["a"], 1, 2)
    with pytest.raises(TypeError, match="a batch returns None or a list with a result for each"):
        await batch("ab", 1, 2)


def test_a_cancellation_passes_everywhere():
    async def fn(ctx: Context) -> None:
        await sleep(1)
        await sleep(1)

    async def around(ctx, call_next):
        await sleep(1)
        try:
            return await call_next(ctx)
        finally:
            assert hops_onward() == 0 or ctx.hops == 0

    def scenario():
        return Trial(run(fn, middlewares=(around,)))

    cancel_everywhere(scenario, minimum=3)


def test_errors_pass_everywhere():
    def scenario(fault):
        async def fn() -> None:
            fault()

        async def around(ctx, call_next):
            fault()
            value = await call_next(ctx)
            fault()
            return value

        return Trial(run(fn, middlewares=(around,)))

    fail_everywhere(scenario, minimum=3)


async def test_a_function_that_exits_has_failed():
    def in_a_thread() -> None:
        sys.exit(2)

    async def on_the_loop() -> None:
        sys.exit("done")

    async def fine() -> None: ...

    async def middleware(ctx, call_next):
        await call_next(ctx)
        sys.exit()

    for fn, middlewares, code in (
        (in_a_thread, [], "2"),
        (on_the_loop, [], "'done'"),
        (fine, [middleware], "None"),
    ):
        with pytest.raises(JobError) as caught:
            await run(fn, middlewares=middlewares)
        assert str(caught.value) == f"job 'f' called sys.exit({code})"
        assert isinstance(caught.value.__cause__, SystemExit)
