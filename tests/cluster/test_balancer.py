"""The load balancer: opened, closed, fed by a registry, through outages; bad input."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from math import inf
from typing import Any

import anyio
import pytest
from anyio.abc import TaskStatus

import aiopatterns
from aiopatterns.cluster import (
    ConsistentHash,
    Ejection,
    LeastLoaded,
    LoadBalancer,
    PowerOfTwo,
    Random,
    RoundRobin,
    ServiceRegistry,
    Strategy,
    WeightedRoundRobin,
)
from aiopatterns.core.clock import monotonic, rng, sleep
from aiopatterns.core.errors import ClosedError, NoEndpointError
from aiopatterns.core.lifecycle import OwnerState
from aiopatterns.testing import Trial, cancel_everywhere, explore, fail_everywhere, simulate
from tests.cluster.endpoints import instances, who
from tests.cluster.weather import Server, Weather

STRATEGIES = (
    RoundRobin(),
    WeightedRoundRobin(),
    PowerOfTwo(),
    LeastLoaded(),
    ConsistentHash(),
    Random(),
)


@pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)
async def test_calls_are_spread_and_reported(strategy):
    async with LoadBalancer(instances("abc"), strategy=strategy) as balancer:
        for number in range(60):
            async with balancer.pick(f"key {number}") as endpoint:
                assert endpoint in balancer.usable
            assert balancer.choose(f"key {number}") in balancer.usable
        found = balancer.statistics()
    assert (found.service, found.calls, found.successes, found.failures) == ("users", 60, 60, 0)
    assert (found.ejections, found.trials, found.panics, found.in_flight) == (0, 0, 0, 0)
    assert list(found.endpoints) == ["a", "b", "c"]
    assert all(each.calls > 0 for each in found.endpoints.values())
    assert sum(each.calls for each in found.endpoints.values()) == 60
    assert repr(balancer) == f"LoadBalancer('users', strategy={strategy!r})"


async def test_choose_and_pick_share_one_order():
    async with LoadBalancer(instances("abc"), strategy=RoundRobin()) as balancer:
        seen = [balancer.choose().id]
        async with balancer.pick() as endpoint:
            seen.append(endpoint.id)
        seen.append(balancer.choose().id)
        assert sorted(seen) == ["a", "b", "c"]


@pytest.mark.promise("cluster-bad-input")
async def test_used_before_and_after():
    balancer = LoadBalancer(instances("ab"))
    opening = "use it inside 'async with LoadBalancer"
    for _ in range(2):
        with pytest.raises(ClosedError, match=opening):
            balancer.choose()
        with pytest.raises(ClosedError, match=opening):
            balancer.pick()
        with pytest.raises(ClosedError, match=opening):
            balancer.refresh()
        async with balancer:
            late = [balancer.pick(), balancer.pick(exclude=["a"])]
            assert balancer.choose().id in "ab"
        for pick in late:
            with pytest.raises(ClosedError, match=opening):
                async with pick:
                    pass


async def test_a_call_that_outlives_the_balancer_ends_quietly():
    eject = Ejection(consecutive=1)
    async with LoadBalancer(instances("ab"), strategy=RoundRobin(), eject=eject) as balancer:
        late = balancer.pick()
        await late.__aenter__()
    await late.__aexit__(OSError, OSError(), None)
    assert balancer.statistics().failures == 1
    with pytest.raises(ClosedError):
        balancer.choose()


async def test_opened_anew_it_begins_anew():
    balancer = LoadBalancer(instances("ab"), eject=Ejection(consecutive=1))
    for _ in range(2):
        async with balancer:
            assert len(balancer.usable) == 2
            with suppress(OSError):
                async with balancer.pick():
                    raise OSError
            assert len(balancer.usable) == 1
            assert balancer.statistics().calls == 1


async def test_static_endpoints_are_updated():
    a, b, c = instances("abc")
    balancer = LoadBalancer([a])
    balancer.update([a, b])
    async with balancer:
        assert list(balancer.usable) == [a, b]
        balancer.update([b, c])
        assert list(balancer.usable) == [b, c]
        balancer.update([])
        with pytest.raises(NoEndpointError, match="'users' has no endpoint: none is there"):
            balancer.choose()
        with pytest.raises(ValueError, match="but one is of 'orders'"):
            balancer.update([type(a)("orders", "h", 1)])
        balancer.update([b])
    async with balancer:
        assert list(balancer.usable) == [b]


async def test_a_health_check_may_decide_and_tells_when_it_changes():
    unhealthy: set[str] = set()
    where = lambda each: each.id not in unhealthy
    async with LoadBalancer(instances("ab"), where=where) as balancer:
        unhealthy.add("a")
        balancer.refresh()
        assert [each.id for each in balancer.usable] == ["b"]
        unhealthy.clear()
        balancer.refresh()
        assert [each.id for each in balancer.usable] == ["a", "b"]


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.real)])
def registry(request):
    url = "memory://" if request.param == "memory" else request.getfixturevalue("redis_url")
    return ServiceRegistry(url, propagation=0)


async def settled(balancer: LoadBalancer, ids: str) -> None:
    with anyio.fail_after(10):
        while "".join(each.id for each in balancer.usable) != ids:
            await sleep(0.005)


@pytest.mark.promise("cluster-balancer-follows")
async def test_a_balancer_follows_its_registry(registry):
    async with registry, LoadBalancer(registry, "users") as balancer:
        with pytest.raises(NoEndpointError, match="'users' has no endpoint: none is there"):
            balancer.choose()
        async with registry.register(who("a")):
            await settled(balancer, "a")
            async with registry.register(who("b"), state="starting") as second:
                await settled(balancer, "a")
                await second.set_state("ready")
                await settled(balancer, "ab")
                async with balancer.pick() as endpoint:
                    assert endpoint.id in "ab"
                await second.set_state("draining")
                await settled(balancer, "a")
            async with LoadBalancer(registry, "users") as another:
                assert [each.id for each in another.usable] == ["a"]  # known from the first moment
        await settled(balancer, "")
        with pytest.raises(ValueError, match="come from a registry: register them there"):
            balancer.update([])


async def test_a_balancer_outlives_its_registry():
    registry = ServiceRegistry("memory://", propagation=0)
    closing = anyio.Event()

    async def hold(*, task_status: TaskStatus[None]) -> None:
        async with registry, registry.register(who("a")):
            task_status.started()
            await closing.wait()

    async with anyio.create_task_group() as group:
        await group.start(hold)
        async with LoadBalancer(registry, "users") as balancer:
            assert balancer.choose().id == "a"
            closing.set()
            while registry.state is not OwnerState.STOPPED:
                await sleep(0.001)
            assert balancer.statistics().in_flight == 0
            assert len(balancer.usable) <= 1  # whether it has heard the last goodbye, or not
    with pytest.raises(ClosedError, match="ServiceRegistry"):
        async with LoadBalancer(registry, "users"):
            pass


async def test_a_registry_that_closes_while_the_balancer_opens():
    registry = ServiceRegistry("memory://", propagation=0)
    balancer = LoadBalancer(registry, "users")
    async with registry:
        async with balancer:
            pool = balancer._pool
    await balancer._follow(registry, pool)


@pytest.mark.promise("cluster-balancer-outage")
def test_an_outage_of_the_registry_is_none_of_the_balancer():
    async def live() -> None:
        async with Server() as server:
            way: Any = Weather(server)
            registry = ServiceRegistry(way, propagation=0)
            async with registry, registry.register(who("a")), LoadBalancer(registry, "users") as b:
                assert b.choose().id == "a"
                way.away = True
                async with LoadBalancer(registry, "orders") as unknown:
                    with pytest.raises(NoEndpointError, match="its registry has not answered yet"):
                        unknown.choose()
                    await sleep(120)
                    assert b.choose().id == "a"
                    way.away = False
                    async with registry.register(type(who("o"))("orders", "h", 1, id="o")):
                        await settled(unknown, "o")
                    async with registry.register(who("b")):
                        await settled(b, "ab")

    simulate(live)


@pytest.mark.promise("cluster-balancer-recovers")
@pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)
def test_every_target_that_recovers_is_used_again(strategy):
    """Each is down and up by chance; none is out for two intervals without being tried."""

    async def live() -> None:
        rules = Ejection(consecutive=2, base=2.0, cap=2.0)
        down = set[str]()
        tried = dict.fromkeys("abcde", 0.0)
        async with LoadBalancer(instances("abcde"), strategy=strategy, eject=rules) as balancer:

            async def call(key: str) -> None:
                with suppress(OSError):
                    async with balancer.pick(key) as endpoint:
                        tried[endpoint.id] = monotonic()
                        await sleep(0.05 * rng().random())
                        if endpoint.id in down:
                            raise OSError

            async with anyio.create_task_group() as group:
                for step in range(600):
                    if rng().random() < 0.05:
                        down = set(rng().sample("abcde", rng().randint(0, 3)))
                    group.start_soon(call, f"key {step % 97}")
                    await sleep(0.1)
                    for name, each in balancer.statistics().endpoints.items():
                        waits = monotonic() - tried[name]
                        assert not each.ejected or waits <= 2 * rules.base
                        assert balancer.usable
            down = set()
            for step in range(60):
                await call(f"key {step % 97}")
                await sleep(0.1)
            assert len(balancer.usable) == 5

    explore(live, range(6))


@pytest.mark.promise("cluster-balancer-never-empty")
@pytest.mark.parametrize("strategy", STRATEGIES, ids=repr)
def test_while_there_is_an_endpoint_a_call_gets_one(strategy):
    """Endpoints come and go, all fail, calls are cancelled: 200 seeds."""

    async def live() -> None:
        async with LoadBalancer(
            instances("abc"), strategy=strategy, eject=Ejection(consecutive=1), slow_start=3.0
        ) as balancer:

            async def caller() -> None:
                for number in range(10):
                    with anyio.move_on_after(0.5 * rng().random()), suppress(OSError):
                        async with balancer.pick(f"key {number}"):
                            await sleep(rng().random())
                            if rng().random() < 0.7:
                                raise OSError
                    balancer.choose(f"key {number}")

            async def change() -> None:
                for _ in range(10):
                    await sleep(rng().random())
                    names = rng().sample("abcdef", rng().randint(1, 6))
                    balancer.update(instances("".join(sorted(names))))

            async with anyio.create_task_group() as group:
                for _ in range(4):
                    group.start_soon(caller)
                group.start_soon(change)
            found = balancer.statistics()
            assert (found.calls, found.in_flight) == (40, 0)

    explore(live, range(34))


@pytest.mark.promise("cluster-balancer-distribution")
def test_a_hung_endpoint_gets_few_calls():
    async def live() -> None:
        async with LoadBalancer(instances("abc")) as balancer:
            counts: Counter[str] = Counter()

            async def call() -> None:
                async with balancer.pick() as endpoint:
                    counts[endpoint.id] += 1
                    hung = endpoint.id == "a" and monotonic() > 5
                    await sleep(1_000.0 if hung else 0.02)

            async with anyio.create_task_group() as group:
                for _ in range(1_000):
                    group.start_soon(call)
                    await sleep(0.01)
                assert sum(counts.values()) == 1_000
                found = balancer.statistics().endpoints["a"]
                assert found.in_flight <= 12
                assert found.latency is not None
                assert found.latency > 0.1
                group.cancel_scope.cancel()

    explore(live, range(10))


@pytest.mark.promise("cluster-balancer-distribution")
def test_a_slow_endpoint_costs_two_choices_less_than_it_costs_turns():
    async def mean(strategy: Strategy) -> float:
        waits: list[float] = []
        async with LoadBalancer(instances("abcde"), strategy=strategy) as balancer:
            busy = {name: anyio.Semaphore(4) for name in "abcde"}

            async def call() -> None:
                began = monotonic()
                async with balancer.pick() as endpoint, busy[endpoint.id]:
                    await sleep(0.1 if endpoint.id == "a" else 0.01)
                waits.append(monotonic() - began)

            async with anyio.create_task_group() as group:
                for _ in range(1_500):
                    group.start_soon(call)
                    await sleep(0.02 * rng().random() / 4)
        return sum(waits) / len(waits)

    async def compare() -> None:
        turns = await mean(RoundRobin())
        assert await mean(PowerOfTwo()) < turns / 2
        assert await mean(LeastLoaded()) < turns / 2

    explore(compare, range(3))


@pytest.mark.promise("cluster-balancer-cancelled")
def test_cancelled_while_it_opens_runs_or_closes():
    def scenario() -> Trial:
        registry = ServiceRegistry("memory://", propagation=0)
        balancer = LoadBalancer(registry, "users")

        async def work() -> None:
            async with registry, registry.register(who("a")), balancer:
                await sleep(0.1)
                async with balancer.pick():
                    await sleep(0.1)

        def check() -> None:
            assert balancer.statistics().in_flight == 0
            with pytest.raises(ClosedError):
                balancer.choose()

        return Trial(work(), check)

    cancel_everywhere(scenario, kinds=("native", "scope", "timeout", "native-twice"), minimum=5)


def test_faults_of_user_functions():
    def scenario(fault) -> Trial:
        def where(each: object) -> bool:
            fault()
            return True

        def judge(error: object):
            fault()
            return "failure"

        balancer = LoadBalancer(instances("abc"), where=where, judge=judge)

        async def work() -> None:
            async with balancer:
                for _ in range(3):
                    with suppress(OSError):
                        async with balancer.pick():
                            fault()
                            raise OSError
                    balancer.refresh()

        def check() -> None:
            assert balancer.statistics().in_flight == 0

        return Trial(work(), check)

    fail_everywhere(scenario, minimum=10)


def test_it_is_a_headline():
    assert aiopatterns.LoadBalancer is LoadBalancer


A = who("a")


@pytest.mark.promise("cluster-bad-input")
@pytest.mark.parametrize(
    ("endpoints", "options", "error", "text"),
    [
        (5, {}, TypeError, "endpoints must be ServiceInstances or a ServiceRegistry, not 5"),
        ("ab", {}, TypeError, "endpoints must be ServiceInstances or a ServiceRegistry, not 'a'"),
        ([A, A], {}, ValueError, "endpoints must have ids of their own, but two are 'a'"),
        ([A], {"service": "orders"}, ValueError, "must be of one service, 'orders'"),
        ([], {"service": "no name"}, ValueError, "service must be letters, digits"),
        (ServiceRegistry("memory://"), {}, ValueError, "service must be the name of a service"),
        ([A], {"strategy": "random"}, TypeError, "strategy must be a strategy, as in RoundRobin()"),
        ([A], {"strategy": RoundRobin}, TypeError, "strategy must be"),
        ([A], {"eject": True}, TypeError, "eject must be an Ejection or None, not True"),
        ([A], {"zone": ""}, ValueError, "zone must be a non-empty string"),
        ([A], {"slow_start": -1}, ValueError, "slow_start must be a finite number >= 0"),
        ([A], {"slow_start": inf}, ValueError, "slow_start must be"),
        ([A], {"where": "version"}, TypeError, "where must be a function"),
        ([A], {"judge": 1}, TypeError, "judge must be a function"),
    ],
)
def test_bad_input(endpoints: Any, options: dict[str, Any], error: type[Exception], text: str):
    with pytest.raises(error, match=text):
        LoadBalancer(endpoints, **options)


@pytest.mark.promise("cluster-bad-input")
def test_async_functions_are_refused():
    async def no(each: object) -> Any:
        return True

    for name in ("where", "judge"):
        options: dict[str, Any] = {name: no}
        with pytest.raises(TypeError, match=f"{name} must be a plain function"):
            LoadBalancer([A], **options)


async def test_no_endpoints_at_all():
    async with LoadBalancer([]) as balancer:
        assert balancer.name == "endpoints"
        with pytest.raises(NoEndpointError):
            balancer.choose()
        balancer.update([])
    async with LoadBalancer([], "users") as balancer:
        balancer.update([A])
        assert balancer.choose() is A
