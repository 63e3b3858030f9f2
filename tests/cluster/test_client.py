"""The service client: where its stack is split, attempts elsewhere, what endpoints learn."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from functools import partial
from itertools import pairwise
from typing import Any

import anyio
import pytest

from aiopatterns import (
    Bulkhead,
    CircuitBreaker,
    CircuitOpenError,
    Fallback,
    Hedge,
    Rate,
    Retry,
    Stack,
    Timeout,
    TimeoutExceededError,
    TokenBucket,
)
from aiopatterns.cluster import (
    ConsistentHash,
    Ejection,
    LoadBalancer,
    RoundRobin,
    ServiceClient,
    ServiceInstance,
    ServiceRegistry,
)
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.errors import (
    BackendUnavailableError,
    ClosedError,
    NoEndpointError,
    RateLimitedError,
)
from aiopatterns.core.tracing import outgoing_headers
from aiopatterns.resilience import Consecutive, Constant, Trip
from aiopatterns.testing import Trial, cancel_everywhere, explore, simulate
from tests.cluster.endpoints import instances, who
from tests.cluster.weather import Server, Weather
from tests.contrib.spans import attributes, id_of, seen

AGAIN = Retry(on=OSError, attempts=3, backoff=Constant(0))


async def name(endpoint: ServiceInstance) -> str:
    return endpoint.id


# Made where there is no loop, and opened on several.
REGISTRY = ServiceRegistry("memory://", propagation=0)
BALANCER = LoadBalancer(REGISTRY, "users")
CLIENTS = [ServiceClient("users", REGISTRY, stack=AGAIN), ServiceClient("users", BALANCER)]


def test_all_of_them_at_module_level_work_on_loop_after_loop():
    async def lifespan_of(endpoint: str) -> None:
        async with REGISTRY, REGISTRY.register(who(endpoint)), BALANCER:
            assert [await client.call(name) for client in CLIENTS] == [endpoint] * 2

    for endpoint in "abc":
        asyncio.run(lifespan_of(endpoint))
        simulate(partial(lifespan_of, endpoint + endpoint))


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.real)])
def registry(request):
    url = "memory://" if request.param == "memory" else request.getfixturevalue("redis_url")
    return ServiceRegistry(url, propagation=0)


@pytest.mark.promise("cluster-balancer-follows")
async def test_a_client_finds_its_service_by_the_registry(registry):
    users = ServiceClient("users", registry, stack=Stack(AGAIN, Timeout(5)))
    assert repr(users) == "ServiceClient('users')"
    async with registry, registry.register(who("a")), registry.register(who("b")):
        found = [await users.call(name) for _ in range(20)]
        assert set(found) == {"a", "b"}
        statistics = users.statistics()
        assert (statistics.service, statistics.calls, statistics.successes) == ("users", 20, 20)
        with pytest.raises(NoEndpointError, match="'orders' has no endpoint: none is there"):
            await ServiceClient("orders", registry).call(name)


@pytest.mark.promise("cluster-balancer-outage")
def test_a_client_through_an_outage():
    async def live() -> None:
        async with Server() as server:
            way: Any = Weather(server)
            registry = ServiceRegistry(way, propagation=0)
            async with registry, registry.register(who("a")):
                users, orders = (ServiceClient(each, registry) for each in ("users", "orders"))
                assert await users.call(name) == "a"
                way.away = True
                await sleep(1000)
                assert await users.call(name) == "a"
                with pytest.raises(BackendUnavailableError):
                    await orders.call(name)
                way.away = False
                with pytest.raises(NoEndpointError):
                    await orders.call(name)

    simulate(live)


@pytest.mark.promise("cluster-client-attempts")
@pytest.mark.parametrize("strategy", [RoundRobin(), ConsistentHash()], ids=repr)
async def test_each_attempt_goes_where_the_call_has_not_been(strategy):
    async with LoadBalancer(instances("abc"), strategy=strategy, eject=None) as balancer:
        users = ServiceClient("users", balancer, stack=AGAIN)
        for number in range(20):
            seen = []

            async def fail(endpoint: ServiceInstance) -> None:
                seen.append(endpoint.id)
                raise OSError

            with pytest.raises(OSError):
                await users.call(fail, key=f"key {number}")
            assert sorted(seen) == ["a", "b", "c"]


@pytest.mark.promise("cluster-client-attempts")
@pytest.mark.parametrize(("present", "longest"), [("a", 1), ("ab", 2), ("abc", 3)])
async def test_when_all_have_been_tried_it_begins_anew_but_not_where_it_just_was(present, longest):
    retry = Retry(on=OSError, attempts=7, backoff=Constant(0))
    async with LoadBalancer(instances(present), eject=None) as balancer:
        users = ServiceClient("users", balancer, stack=retry)
        seen: list[str] = []

        async def fail(endpoint: ServiceInstance) -> None:
            seen.append(endpoint.id)
            raise OSError

        with pytest.raises(OSError):
            await users.call(fail)
        assert len(seen) == 7
        assert len(set(seen[:longest])) == longest
        if len(present) > 1:
            assert all(one != other for one, other in pairwise(seen))


async def test_an_ejected_endpoint_is_not_tried_while_another_is_in_use():
    eject = Ejection(consecutive=1)
    async with LoadBalancer(instances("ab"), strategy=RoundRobin(), eject=eject) as balancer:
        users = ServiceClient("users", balancer, stack=AGAIN)
        seen: list[str] = []

        async def fail(endpoint: ServiceInstance) -> None:
            seen.append(endpoint.id)
            raise OSError

        with pytest.raises(OSError):
            await users.call(fail)
        assert len(set(seen[1:])) == 1  # the first was out from then on
        assert seen[0] != seen[1]


@pytest.mark.promise("cluster-client-hangs")
def test_the_timeout_of_an_attempt_is_a_failure_of_its_endpoint():
    async def live() -> None:
        eject = Ejection(consecutive=2)
        async with LoadBalancer(instances("abc"), strategy=RoundRobin(), eject=eject) as balancer:
            stack = Stack(
                Timeout(30), Retry(on=TimeoutError, attempts=3, backoff=Constant(0)), Timeout(2)
            )
            users = ServiceClient("users", balancer, stack=stack)

            async def ask(endpoint: ServiceInstance) -> str:
                if endpoint.id == "a":
                    await anyio.sleep_forever()
                return endpoint.id

            for _ in range(12):
                assert await users.call(ask) in "bc"
            assert [each.id for each in balancer.usable] == ["b", "c"]
            assert balancer.statistics().endpoints["a"].failures == 2
            assert monotonic() == pytest.approx(4.0)

    explore(live, range(20))


async def test_a_total_timeout_cancels_the_attempt_which_says_nothing():
    async with LoadBalancer(instances("a")) as balancer:
        users = ServiceClient("users", balancer, stack=Stack(Timeout(0.01), AGAIN, Timeout(5)))

        async def hang(endpoint: ServiceInstance) -> None:
            await anyio.sleep_forever()

        with pytest.raises(TimeoutExceededError):
            await users.call(hang)
        found = balancer.statistics()
        assert (found.calls, found.failures, found.in_flight) == (1, 0, 0)


async def test_a_stack_without_a_retry_is_all_inside():
    async with LoadBalancer(instances("a")) as balancer:
        users = ServiceClient("users", balancer, stack=Timeout(0.01))

        async def hang(endpoint: ServiceInstance) -> None:
            await anyio.sleep_forever()

        with pytest.raises(TimeoutExceededError):
            await users.call(hang)
        assert balancer.statistics().failures == 1


async def test_policies_inside_are_given_the_endpoint_and_those_outside_the_key():
    limit = TokenBucket(Rate(1, per=60), key=lambda endpoint: endpoint.id, max_wait=0)
    seen: list[object] = []

    async def elsewhere(*args: object) -> str:
        seen.append(args)
        return "elsewhere"

    fallback = Fallback(elsewhere, on=OSError)
    async with LoadBalancer(instances("ab"), strategy=RoundRobin()) as balancer:
        users = ServiceClient("users", balancer, stack=Stack(fallback, limit))
        assert {await users.call(name), await users.call(name)} == {"a", "b"}
        with pytest.raises(RateLimitedError):
            await users.call(name)
        assert balancer.statistics().failures == 0

        async def fail(endpoint: ServiceInstance) -> str:
            raise OSError

        users = ServiceClient("users", balancer, stack=fallback)
        assert await users.call(fail, key="user:7") == "elsewhere"
        assert len(seen) == 1
        assert balancer.statistics().failures == 1


async def test_a_breaker_that_refuses_says_nothing_of_the_endpoint():
    breaker = CircuitBreaker("users", trip=Trip(Consecutive(1)), open_for=60)
    async with LoadBalancer(instances("ab")) as balancer:
        users = ServiceClient("users", balancer, stack=Stack(breaker, Bulkhead(5)))

        async def fail(endpoint: ServiceInstance) -> None:
            raise OSError

        with pytest.raises(OSError):
            await users.call(fail)
        with pytest.raises(CircuitOpenError):
            await users.call(fail)
        found = balancer.statistics()
        assert (found.calls, found.failures, found.in_flight) == (2, 1, 0)


@pytest.mark.promise("cluster-client-attempts")
def test_a_hedge_goes_to_another_endpoint():
    async def live() -> None:
        async with LoadBalancer(instances("ab"), strategy=RoundRobin()) as balancer:
            users = ServiceClient("users", balancer, stack=Hedge(after=0.1))
            seen: list[str] = []

            async def ask(endpoint: ServiceInstance) -> str:
                seen.append(endpoint.id)
                await sleep(10.0 if len(seen) == 1 else 0.01)
                return endpoint.id

            assert await users.call(ask) == seen[1]
            assert sorted(seen) == ["a", "b"]
            found = balancer.statistics()
            assert (found.successes, found.failures, found.in_flight) == (1, 0, 0)

    explore(live, range(20))


async def test_a_key_has_an_endpoint_of_its_own():
    async with LoadBalancer(instances("abcde"), strategy=ConsistentHash()) as balancer:
        users = ServiceClient("users", balancer)
        for key in ("one", "two", "three"):
            assert len({await users.call(name, key=key) for _ in range(5)}) == 1


async def test_any_awaitable_of_a_lambda():
    async with LoadBalancer(instances("a")) as balancer:
        assert await ServiceClient("users", balancer).call(lambda each: name(replace(each))) == "a"


@pytest.mark.promise("cluster-client-cancelled")
def test_cancelled_at_any_await():
    registry = ServiceRegistry("memory://", propagation=0)
    retry = Retry(on=OSError, attempts=3, backoff=Constant(0.01))

    def scenario() -> Trial:
        users = ServiceClient("users", registry, stack=Stack(Timeout(9), retry, Timeout(2)))
        seen: list[str] = []

        async def ask(endpoint: ServiceInstance) -> str:
            seen.append(endpoint.id)
            await sleep(0.01)
            if len(seen) == 1:
                raise OSError
            return endpoint.id

        async def work() -> None:
            async with registry, registry.register(who("a")), registry.register(who("b")):
                assert await users.call(ask) != seen[0]

        def check() -> None:
            found = users.statistics()
            assert found.in_flight == 0
            assert found.failures <= 1
            assert found.failures + found.successes <= len(seen)

        return Trial(work(), check)

    cancel_everywhere(scenario, kinds=("native", "scope", "timeout", "native-twice"), minimum=8)


A = who("a")
SOME = LoadBalancer([A])


@pytest.mark.promise("cluster-bad-input")
@pytest.mark.parametrize(
    ("args", "options", "error", "text"),
    [
        (("", SOME), {}, ValueError, "service must be a non-empty string"),
        (("orders", SOME), {}, ValueError, "source must be a balancer of 'orders', not of 'users'"),
        (("users", [A]), {}, TypeError, "source must be a ServiceRegistry or a LoadBalancer"),
        (("users", SOME), {"strategy": RoundRobin()}, TypeError, "strategy must be None beside"),
        (("users", SOME), {"stack": [Timeout(1)]}, TypeError, "stack must be a Stack or another"),
        (
            ("users", ServiceRegistry("memory://")),
            {"strategy": "random"},
            TypeError,
            "strategy must be a strategy",
        ),
    ],
)
def test_bad_input(args: Any, options: dict[str, Any], error: type[Exception], text: str):
    with pytest.raises(error, match=text):
        ServiceClient(*args, **options)


@pytest.mark.promise("cluster-bad-input")
async def test_bad_calls():
    users = ServiceClient("users", SOME)
    with pytest.raises(ClosedError, match="LoadBalancer"):
        await users.call(name)
    with pytest.raises(ClosedError, match="ServiceRegistry"):
        await ServiceClient("users", ServiceRegistry("memory://")).call(name)

    def plain(endpoint: ServiceInstance) -> Any:
        return 1

    with pytest.raises(TypeError, match="fn must be an async function"):
        await users.call(plain)


@pytest.mark.promise("cluster-balancer-ejection")
def test_an_endpoint_that_hangs_takes_no_more_than_its_trials_though_nobody_sees_it_fail():
    """The only timeout is outside of the attempts: whoever calls one by one waits for it, once."""

    async def live() -> None:
        hung = False

        async def ask(endpoint: ServiceInstance) -> str:
            if endpoint.id == "a":
                if hung:
                    await sleep(1_000)
                raise OSError
            await sleep(0.01)
            return endpoint.id

        rules = Ejection(consecutive=2, base=30.0)
        async with LoadBalancer(instances("abc"), "users", eject=rules) as balancer:
            client = ServiceClient("users", balancer, stack=Stack(Timeout(1), AGAIN))
            while len(balancer.usable) == 3:
                await client.call(ask)
            hung, lost = True, 0
            began = monotonic()
            while monotonic() - began < 150:
                try:
                    await client.call(ask)
                except TimeoutExceededError:
                    lost += 1
            assert 28 <= lost <= 32  # a second of each four, once the half minute is over

    simulate(live)


# -- tracing -------------------------------------------------------------------------------------


async def test_each_attempt_is_a_span_with_its_endpoint():
    registry = ServiceRegistry("memory://", propagation=0)
    calls: list[str] = []

    async def flaky(endpoint: ServiceInstance) -> str:
        calls.append(endpoint.id)
        if len(calls) == 1:
            raise OSError("away")
        return str(outgoing_headers()["traceparent"])

    async with registry, registry.register(who("a")), registry.register(who("b")):
        with seen() as record:
            sent = await ServiceClient("users", registry, stack=AGAIN).call(flaky)
    first, second = record.spans
    assert {first.name, second.name} == {"call users"}
    assert attributes(first)["error.type"] == "OSError"
    assert attributes(first)["aiopatterns.service"] == "users"
    hosts = [attributes(each)["server.address"] for each in (first, second)]
    assert hosts == [who(each).host for each in calls]
    assert sent.split("-")[2] == f"{id_of(second):016x}"
