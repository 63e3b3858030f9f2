"""Runs of a service: states, statistics, health, registration, checks."""

from __future__ import annotations

import anyio
import pytest

from aiopatterns import (
    Broker,
    ClosedError,
    HealthChecker,
    NoHandlersError,
    Service,
    ServiceRegistry,
)
from aiopatterns.backends import open_backend
from aiopatterns.cluster import ServiceInstance
from aiopatterns.core.clock import sleep, yield_now
from aiopatterns.messaging import (
    ServiceDraining,
    ServiceStarted,
    ServiceState,
    ServiceStatistics,
    ServiceStopped,
)
from aiopatterns.testing import capture_events, explore


def service() -> Service:
    users = Service("users", version="1.2.0")

    @users.query("user.get")
    async def get(payload: int) -> int:
        return payload

    return users


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.real)])
def backend(request):
    """Return a backend in memory or on Redis."""
    if request.param == "memory":
        return open_backend("memory://")
    return open_backend(request.getfixturevalue("redis_url"))


@pytest.mark.promise("messaging-service-health")
async def test_its_life_is_told(backend):
    run = service().run(Broker(backend), propagation=0)
    assert (run.id, run.state, run.name) == ("", ServiceState.STOPPED, "users")
    assert run.statistics() == ServiceStatistics("users", "", ServiceState.STOPPED)
    assert not run.health().ok
    with capture_events() as events:
        async with run:
            assert run.state is ServiceState.READY
            assert run.health().ok
            assert run.statistics().uptime >= 0
            replica = run.id
        assert not run.health().ok
    told = [each for each in events if each.name.startswith("aiopatterns.service.")]
    assert told == [
        ServiceStarted("users", replica),
        ServiceDraining("users", replica),
        ServiceStopped("users", replica, 0, 0, 0),
    ]
    assert run.statistics().uptime == 0
    async with run:
        assert run.id != replica


@pytest.mark.promise("messaging-service-health")
async def test_the_service_tells_of_its_runs_in_this_process(backend):
    users = service()
    assert not users.runs
    assert (users.health().state, users.health().ok) == (ServiceState.STOPPED, False)
    async with Broker(backend) as one, users.run(one, propagation=0) as run:
        assert users.runs == (run,)
        assert users.health() == run.health()
        assert users.health().ok
        async with users.run(Broker(backend), checker=ill(), propagation=0) as other:
            assert set(users.runs) == {run, other}
            assert users.health().id == other.id  # the one that is not well
        assert users.health().id == run.id
    assert not users.runs


def ill() -> HealthChecker:
    """A checker whose check has not succeeded."""

    async def fail() -> bool:
        return False

    return HealthChecker({"db": fail}, interval=60)


@pytest.mark.promise("messaging-service-registry")
async def test_it_is_registered_as_long_as_it_is_ready(backend):
    async with ServiceRegistry(backend, propagation=0) as registry, Broker(backend) as broker:
        async with service().run(broker, registry, propagation=0) as run:
            (found,) = (await registry.instances("users")).instances
            assert (found.id, found.version) == (run.id, "1.2.0")
            assert dict(found.metadata) == {"transport": "broker"}
        assert (await registry.instances("users")).instances == ()


@pytest.mark.promise("messaging-service-registry")
def test_who_answers_is_ready_and_registered():
    async def scenario() -> None:
        backend, told = open_backend("memory://"), list[str]()
        async with Broker(backend) as customer, ServiceRegistry(backend) as registry:

            async def ask() -> None:
                while True:
                    try:
                        answer = await customer.request("$SRV.PING.users")
                    except NoHandlersError:
                        await yield_now()
                    else:
                        told.append(answer["state"])
                        assert (await registry.instances("users")).instances
                        return

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(ask)
                async with service().run(Broker(backend), registry, propagation=0):
                    with anyio.fail_after(10):
                        while not told:
                            await sleep(0.001)
        assert told == ["ready"]

    explore(scenario, range(50))


@pytest.mark.promise("messaging-service-registry")
async def test_it_is_registered_as_what_it_is_told(backend):
    me = ServiceInstance("users", "10.0.0.1", 8000, id="users-1")
    registry = ServiceRegistry(backend, propagation=0)
    async with service().run(Broker(backend), registry, instance=me, propagation=0) as run:
        assert run.id == "users-1"
        assert (await registry.instances("users")).instances == (me,)
    with pytest.raises(ClosedError):  # it was opened with the run
        await registry.instances("users")
    other = ServiceInstance("orders", "10.0.0.1", 8000)
    with pytest.raises(ValueError, match="instance must be of service 'users', not of 'orders'"):
        service().run(Broker(backend), registry, instance=other)


@pytest.mark.promise("messaging-service-registry")
async def test_who_cannot_register_does_not_start(backend):
    me = ServiceInstance("users", "10.0.0.1", 8000, id="users-1")
    async with ServiceRegistry(backend, propagation=0) as registry, Broker(backend) as broker:
        async with registry.register(me):
            with pytest.raises(ValueError, match="registered by this registry already"):
                async with service().run(broker, registry, instance=me):
                    raise AssertionError
        assert broker.statistics().subscriptions == 0


@pytest.mark.promise("messaging-service-health")
async def test_its_checks_count(backend):
    well = True

    async def check() -> bool:
        return well

    checker = HealthChecker({"db": check}, interval=60, rise=1, fall=1, dwell=0.001)
    async with service().run(Broker(backend), checker=checker, propagation=0) as run:
        await checker.check_now("db")
        assert run.health().ok
        well = False
        await sleep(0.05)
        await checker.check_now("db")
        health = run.health()
        assert health.checks is not None
        assert not health.ok
    assert not checker.is_open
