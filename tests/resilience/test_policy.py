"""The algebra of policies: what they may decorate, what they refuse, and streams."""

from __future__ import annotations

import inspect
from functools import partial
from typing import Any

import pytest

from aiopatterns.resilience.policy import Policy


def wrong(value: object) -> Any:
    """Hide from the type checker what it would refuse."""
    return value


class Counting(Policy):
    """The least policy there can be: counts the calls that begin."""

    def __init__(self):
        self.begun = 0

    def wrap(self, fn):
        async def counted(*args, **kwargs):
            self.begun += 1
            return await fn(*args, **kwargs)

        return counted


async def double(n, *, plus=0):
    """Twice."""
    return 2 * n + plus


async def numbers(n):
    """Up to n."""
    for i in range(n):
        yield i


class Callable:
    async def __call__(self, n):
        return n

    async def method(self, n):
        return n + 1

    @staticmethod
    async def static(n):
        return n + 2

    def get(self, n):
        """As methods of redis clients are: plain, and what they return can be awaited."""
        return double(n)


class Numbers:
    async def __call__(self, n):
        for i in range(n):
            yield i


async def test_it_decorates_async_functions_of_every_shape():
    policy = Counting()
    assert await policy(double)(2, plus=1) == 5
    assert await policy(partial(double, plus=3))(2) == 7
    assert await policy(Callable())(4) == 4
    assert await policy(Callable().method)(4) == 5
    assert await policy(Callable.static)(4) == 6
    assert await policy(lambda n: double(n, plus=1))(4) == 9
    assert await policy(Callable().get)(4) == 8
    assert policy.begun == 7


async def test_it_keeps_name_and_signature():
    decorated = Counting()(double)
    assert decorated.__name__ == "double"
    assert decorated.__doc__ == "Twice."
    assert inspect.signature(decorated) == inspect.signature(double)
    assert inspect.iscoroutinefunction(decorated)
    assert inspect.isasyncgenfunction(Counting()(numbers))


async def test_it_decorates_methods():
    policy = Counting()

    class Client:
        @policy
        async def get(self, n):
            return self, n

    client = Client()
    assert await client.get(1) == (client, 1)


async def test_call_runs_one_call():
    policy = Counting()
    assert await policy.call(double, 2, plus=1) == 5
    assert await policy.call(lambda: double(3)) == 6
    assert policy.begun == 2


@pytest.mark.promise("resilience-bad-input")
async def test_a_plain_function_is_refused():
    def plain(n):
        return n

    policy = Counting()
    with pytest.raises(TypeError, match=r"must be an async function, not the plain function .*pl"):
        policy(plain)
    with pytest.raises(TypeError, match=r"must be an async function, but .*plain returned 1"):
        await policy.call(plain, 1)
    with pytest.raises(TypeError, match="fn must be a function, not 3"):
        wrong(policy)(3)
    with pytest.raises(TypeError, match=r"must be an async function, but Callable returned"):
        await wrong(policy)(Callable)()
    with pytest.raises(TypeError, match="decorate it"):
        wrong(policy).call(numbers, 3)


async def test_a_stream_passes_from_first_to_last():
    policy = Counting()
    assert [n async for n in policy(numbers)(3)] == [0, 1, 2]
    assert [n async for n in policy(numbers)(0)] == []
    assert [n async for n in policy(Numbers())(2)] == [0, 1]
    assert policy.begun == 3


async def test_a_stream_that_is_left_is_closed():
    closed = []

    @Counting()
    async def stream():
        try:
            yield 1
            yield 2
        finally:
            closed.append(True)

    left = stream()
    assert await anext(left) == 1
    await left.aclose()
    assert closed == [True]


async def test_an_error_of_a_stream_passes_untouched():
    error = ValueError("mid-way")

    @Counting()
    async def stream():
        yield 1
        raise error

    got = []
    with pytest.raises(ValueError) as caught:
        async for n in stream():
            got.append(n)
    assert caught.value is error
    assert got == [1]


def test_a_policy_neither_multiplies_nor_bounds_unless_it_says_so():
    assert Counting().calls() == 1
    assert Counting().bound(7.0) == 7.0
    assert not Counting().adopt(Counting())


class Idle(Policy):
    """Gives the function back."""

    def wrap(self, fn):
        return fn


async def test_a_policy_may_give_the_function_back_as_it_is():
    class Client:
        async def get(self, n):
            return n

    bound = Client().get
    assert Idle()(bound) is bound
    decorated = Idle()(Client.get)
    assert str(inspect.signature(decorated)) == "(self, n)"
    assert not hasattr(decorated, "__wrapped__")
    assert await Idle().call(bound, 1) == 1
