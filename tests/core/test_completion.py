"""Work that a cancellation must not leave in the middle."""

from __future__ import annotations

import anyio
import pytest

from aiopatterns.core.clock import sleep
from aiopatterns.core.completion import cancelled_once, to_the_end
from aiopatterns.testing import Trial, cancel_everywhere


async def test_results_and_errors_come_through():
    async def fine() -> int:
        await sleep(0)
        return 3

    async def wrong() -> None:
        raise ValueError("wrong")

    assert await to_the_end(fine) == 3
    assert await cancelled_once(fine) == 3
    with pytest.raises(ValueError, match="wrong"):
        await to_the_end(wrong)
    with pytest.raises(ValueError, match="wrong"):
        await cancelled_once(wrong)


@pytest.mark.parametrize("kinds", [("native", "scope", "timeout", "native-twice")])
def test_it_ends_wherever_the_caller_is_cancelled(kinds):
    def scenario() -> Trial:
        steps: list[int] = []

        async def steady() -> None:
            for number in range(3):
                await sleep(0.01)
                steps.append(number)

        async def work() -> None:
            await to_the_end(steady)

        return Trial(work(), lambda: check(steps))

    def check(steps: list[int]) -> None:
        assert steps in ([], [0, 1, 2])

    assert cancel_everywhere(scenario, kinds=kinds).positions >= 1


def test_tidying_up_may_wait_wherever_the_caller_is_cancelled():
    def scenario() -> Trial:
        done: list[str] = []

        async def tidy() -> None:
            done.append("begun")
            try:
                await sleep(0.01)
            finally:
                await sleep(0.01)  # a scope that is cancelled would not let it
                done.append("tidy")

        async def work() -> None:
            await cancelled_once(tidy)

        return Trial(work(), lambda: check(done))

    def check(done: list[str]) -> None:
        assert done in ([], ["begun", "tidy"])

    cancel_everywhere(scenario)


async def test_who_is_cancelled_already_begins_nothing():
    begun: list[int] = []

    async def work() -> None:
        begun.append(1)

    with anyio.CancelScope() as scope:
        scope.cancel()
        await cancelled_once(work)
    assert not begun
