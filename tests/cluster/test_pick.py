"""One balanced call: what each way to leave the block says."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from aiopatterns.cluster import Ejection, LoadBalancer, RoundRobin
from aiopatterns.core.errors import BulkheadFullError, NoEndpointError
from aiopatterns.testing import Trial, cancel_everywhere
from tests.cluster.endpoints import instances, who


def figures(balancer):
    found = balancer.statistics()
    ended = found.successes + found.failures + found.ignored
    assert found.calls == ended + found.in_flight
    return found.calls, found.successes, found.failures, found.in_flight


async def test_it_succeeds_if_the_block_ends():
    async with LoadBalancer(instances("a")) as balancer:
        async with balancer.pick() as endpoint:
            assert endpoint.id == "a"
            assert figures(balancer) == (1, 0, 0, 1)
        assert figures(balancer) == (1, 1, 0, 0)


@pytest.mark.parametrize("error", [OSError(), TimeoutError(), ExceptionGroup("", [OSError()])])
async def test_an_error_is_a_failure_and_leaves(error):
    async with LoadBalancer(instances("a")) as balancer:
        with pytest.raises(type(error)) as caught:
            async with balancer.pick():
                raise error
        assert caught.value is error
        assert figures(balancer) == (1, 0, 1, 0)


async def test_a_refusal_says_nothing():
    async with LoadBalancer(instances("a")) as balancer:
        with pytest.raises(BulkheadFullError):
            async with balancer.pick():
                raise BulkheadFullError(name="b")
        assert figures(balancer) == (1, 0, 0, 0)


@pytest.mark.promise("cluster-balancer-cancelled")
async def test_a_cancelled_call_says_nothing_and_a_timeout_inside_is_a_failure():
    async with LoadBalancer(instances("a")) as balancer:
        with anyio.move_on_after(0.001):
            async with balancer.pick():
                await anyio.sleep_forever()
        assert figures(balancer) == (1, 0, 0, 0)
        with pytest.raises(TimeoutError):
            async with balancer.pick():
                with anyio.fail_after(0.001):
                    await anyio.sleep_forever()
        assert figures(balancer) == (2, 0, 1, 0)


@pytest.mark.parametrize("error", [KeyboardInterrupt, GeneratorExit])
async def test_what_ends_the_program_says_nothing(error):
    async with LoadBalancer(instances("a")) as balancer:
        pick = balancer.pick()
        await pick.__aenter__()
        await pick.__aexit__(error, error(), None)
        assert figures(balancer) == (1, 0, 0, 0)


async def test_a_judge_decides():
    def judge(error: object):
        if isinstance(error, KeyError):
            return "success"
        return "ignore" if isinstance(error, ValueError) else "failure"

    async with LoadBalancer(instances("a"), judge=judge) as balancer:
        for error in (KeyError, ValueError, OSError):
            with pytest.raises(error):
                async with balancer.pick():
                    raise error
        assert figures(balancer) == (3, 1, 1, 0)


async def test_a_judge_that_fails_is_a_defect_and_the_call_says_nothing():
    def judge(error: object):
        raise LookupError

    async with LoadBalancer(instances("a"), judge=judge) as balancer:
        with pytest.raises(LookupError):
            async with balancer.pick():
                raise OSError
        assert figures(balancer) == (1, 0, 0, 0)


async def test_it_is_used_once():
    async with LoadBalancer(instances("a")) as balancer:
        pick = balancer.pick()
        async with pick:
            with pytest.raises(RuntimeError, match=r"call balancer.pick\(\) for each call"):
                await pick.__aenter__()
        with pytest.raises(RuntimeError, match="a pick is used once"):
            async with pick:
                pass
        assert figures(balancer) == (1, 1, 0, 0)


@pytest.mark.promise("cluster-bad-input")
async def test_exclude_holds_instances_or_ids():
    a, b, c = instances("abc")
    async with LoadBalancer([a, b, c]) as balancer:
        async with balancer.pick(exclude=[a, "b"]) as endpoint:
            assert endpoint is c
        wrong: Any
        for wrong in ("a", a):
            with pytest.raises(TypeError, match="exclude must hold instances or their ids, not be"):
                async with balancer.pick(exclude=wrong):
                    pass
        with pytest.raises(NoEndpointError) as caught:
            async with balancer.pick(exclude=(a, b, c)):
                pass
        assert str(caught.value) == ("service 'users' has no endpoint left: all 3 are excluded")
        assert caught.value.name == "users"
        async with balancer.pick(exclude=[who("another")]):
            pass


def cancelled_calls() -> Trial:
    balancer = LoadBalancer(instances("ab"), strategy=RoundRobin(), eject=Ejection(consecutive=1))

    async def work() -> None:
        async with balancer:
            for _ in range(3):
                async with balancer.pick():
                    await anyio.sleep(0.01)
                async with balancer.pick() as endpoint, balancer.pick(exclude=[endpoint]):
                    await anyio.sleep(0.01)

    def check() -> None:
        found = balancer.statistics()
        assert (found.in_flight, found.failures, found.ejections) == (0, 0, 0)
        assert found.calls == found.successes + found.ignored
        assert found.ignored <= 2
        assert all(each.in_flight == 0 for each in found.endpoints.values())

    return Trial(work(), check)


@pytest.mark.promise("cluster-balancer-cancelled")
def test_cancelled_at_any_await_nothing_is_left_and_nothing_counts():
    cancel_everywhere(
        cancelled_calls, kinds=("native", "scope", "timeout", "native-twice"), minimum=6
    )
