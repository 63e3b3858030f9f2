"""Readiness: who is not well is not among the ready ones of the registry."""

from __future__ import annotations

from typing import Any

import anyio
import pytest

from aiopatterns import Broker, HealthChecker, Service, ServiceRegistry
from aiopatterns.backends import open_backend
from aiopatterns.cluster import ServiceInstance
from aiopatterns.core.clock import sleep
from aiopatterns.messaging.readiness import standing
from aiopatterns.testing import explore, simulate

PATIENCE = 20.0


class Database:
    """Something that may be away."""

    def __init__(self, *, well: bool) -> None:
        self.well = well

    async def check(self) -> bool:
        return self.well

    def checker(self) -> HealthChecker:
        return HealthChecker({"db": self.check}, interval=0.01, rise=1, fall=1, dwell=0.001)


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.real)])
def backend(request):
    """Return a backend in memory or on Redis."""
    if request.param == "memory":
        return open_backend("memory://")
    return open_backend(request.getfixturevalue("redis_url"))


async def ready(registry: ServiceRegistry, wanted: int) -> None:
    """Wait until so many replicas are ready."""
    with anyio.fail_after(PATIENCE):
        while len((await registry.instances("users")).instances) != wanted:
            await sleep(0.01)


@pytest.mark.promise("messaging-service-registry")
async def test_a_replica_that_is_not_well_is_not_ready_in_the_registry(backend):
    database, users = Database(well=False), Service("users")
    async with ServiceRegistry(backend, propagation=0) as registry, Broker(backend) as broker:
        run = users.run(broker, registry, checker=database.checker(), propagation=0)
        for _ in range(2):  # and again
            database.well = False
            async with users.run(broker, registry, propagation=0), run:
                assert len((await registry.instances("users")).instances) == 1  # from the beginning
                database.well = True
                await ready(registry, 2)
                database.well = False
                await ready(registry, 1)
                database.well = True
                await ready(registry, 2)
            assert (await registry.instances("users")).instances == ()


@pytest.mark.promise("messaging-service-registry")
def test_a_check_that_is_removed_counts_no_more():
    async def scenario() -> None:
        checker, backend = Database(well=False).checker(), open_backend("memory://")
        async with ServiceRegistry(backend, propagation=0) as registry, Broker(backend) as broker:
            async with Service("users").run(broker, registry, checker=checker, propagation=0):
                assert standing(checker) == "starting"
                checker.remove("db")
                assert standing(checker) == standing(None) == "ready"
                await ready(registry, 1)

    simulate(scenario)


@pytest.mark.promise("messaging-service-registry")
def test_whose_id_was_taken_by_a_newer_process_serves_on():
    async def scenario() -> None:
        database, backend, users = Database(well=True), open_backend("memory://"), Service("users")
        me = ServiceInstance("users", "10.0.0.1", 8000, id="users-1")
        async with (
            ServiceRegistry(backend, propagation=0, ttl=1) as old,
            ServiceRegistry(backend, propagation=0, ttl=1) as new,
            Broker(backend) as broker,
        ):
            run = users.run(broker, old, instance=me, checker=database.checker(), propagation=0)
            async with run:
                await ready(old, 1)
                async with new.register(me):
                    await sleep(1.0)
                    database.well = False
                    await sleep(0.1)
                    assert len((await new.instances("users")).instances) == 1
                    assert not run.health().ok
                    assert await broker.request("$SRV.PING.users")

    simulate(scenario)


@pytest.mark.promise("messaging-service-registry")
def test_who_leaves_is_never_told_ready_again():
    async def scenario() -> None:
        backend, database = open_backend("memory://"), Database(well=True)
        async with (
            ServiceRegistry(backend, propagation=0.05) as registry,
            Broker(backend) as broker,
        ):
            seen: list[Any] = []

            async def flap() -> None:
                while True:
                    database.well = not database.well
                    await sleep(0.007)

            async def look() -> None:
                await sleep(0.005)
                while True:
                    seen.append((await registry.instances("users")).instances)
                    await sleep(0.003)

            async with anyio.create_task_group() as tasks:
                tasks.start_soon(flap)
                async with Service("users").run(
                    broker, registry, checker=database.checker(), propagation=0
                ):
                    await sleep(0.1)
                    tasks.start_soon(look)
                tasks.cancel_scope.cancel()
            assert len(seen) > 5
            assert not any(seen)

    explore(scenario, range(50))
