"""What one call sets in its context, no other call sees."""

from __future__ import annotations

from contextvars import ContextVar, copy_context

import pytest

from aiopatterns.flow.isolation import Isolation

seen: ContextVar[object] = ContextVar("seen", default=None)


async def run(isolation, fn, argument):
    return await (isolation.call(fn, argument) if isolation.spoiled() else fn(argument))


async def note(value):
    before = seen.get()
    seen.set(value)
    return before


async def look(_):
    return seen.get()


async def test_a_variable_that_a_call_sets_is_gone_in_the_next():
    seen.set("outer")
    isolation = Isolation()
    assert await run(isolation, look, 0) == "outer"
    assert not isolation.spoiled()
    assert await run(isolation, note, 1) == "outer"
    assert isolation.spoiled()
    assert await run(isolation, note, 2) == "outer"
    assert await run(isolation, look, 0) == "outer"


async def test_a_variable_set_and_reset_spoils_nothing():
    isolation = Isolation()

    async def tidy(value):
        token = seen.set(value)
        seen.reset(token)

    await run(isolation, tidy, 1)
    assert not isolation.spoiled()


async def test_what_the_caller_sets_in_between_is_not_seen_either():
    isolation = Isolation()
    seen.set("by the source")
    assert await run(isolation, look, 0) is None


async def test_values_that_cannot_be_compared_count_as_new():
    class Odd:
        def __eq__(self, other: object) -> bool:
            raise ValueError("ambiguous")

        __hash__ = None  # type: ignore[assignment]

    seen.set(Odd())
    isolation = Isolation()
    seen.set(Odd())
    with pytest.raises(ValueError, match="ambiguous"):
        _ = copy_context() == isolation._clean
    assert isolation.spoiled()


async def test_an_error_leaves_bare():
    isolation = Isolation()
    error = LookupError()

    async def fail(_):
        raise error

    for _ in range(2):
        with pytest.raises(LookupError) as caught:
            await run(isolation, fail, 0)
        assert caught.value is error
        seen.set(object())
