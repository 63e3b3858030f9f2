"""The registry as users write it, under both checkers."""

from __future__ import annotations

from typing import assert_type

from aiopatterns import ServiceRegistry, open_backend
from aiopatterns.cluster import (
    InstanceState,
    Registration,
    RegistrationStatistics,
    RegistryStatistics,
    ServiceInstance,
    Snapshot,
)

registry = ServiceRegistry(open_backend("memory://"), ttl=15, max_stale=60)
ServiceRegistry("redis://localhost:6379", propagation=0, preservation=0)


async def serve() -> None:
    async with registry as opened:
        assert_type(opened, ServiceRegistry)
        me = ServiceInstance("users", "10.0.0.1", 8000, zone="eu-1", metadata={"rack": "7"})
        async with registry.register(me, state="starting") as registration:
            assert_type(registration, Registration)
            await registration.set_state("ready")
            assert_type(registration.state, InstanceState)
            assert_type(registration.lost, bool)
            assert_type(registration.statistics(), RegistrationStatistics)
    assert_type(registry.statistics(), RegistryStatistics)


async def call() -> None:
    snapshot = await registry.instances("users")
    assert_type(snapshot, Snapshot)
    assert_type(snapshot.instances, tuple[ServiceInstance, ...])
    assert_type(snapshot.states["a"], InstanceState)
    async with registry.watch("users") as snapshots:
        async for each in snapshots:
            assert_type(each, Snapshot)
        assert_type(await anext(snapshots), Snapshot)
