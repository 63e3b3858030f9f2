"""The load balancer and the service client as users write them, under both checkers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import assert_type

from aiopatterns import LoadBalancer, Retry, ServiceRegistry, Stack, Timeout
from aiopatterns.cluster import (
    BalancerStatistics,
    ConsistentHash,
    Ejection,
    Endpoint,
    EndpointStatistics,
    Picker,
    PowerOfTwo,
    RoundRobin,
    ServiceClient,
    ServiceInstance,
    Strategy,
    Traffic,
)

registry = ServiceRegistry("memory://")
endpoints = (ServiceInstance("users", "10.0.0.1", 8000 + at, zone="eu-1") for at in range(3))
balancer = LoadBalancer(
    endpoints,
    strategy=ConsistentHash(1.5),
    eject=Ejection(5, 30, max_ejected_ratio=0.3),
    zone="eu-1",
    slow_start=10,
    where=lambda each: each.version.startswith("2."),
    judge=lambda error: "success" if isinstance(error, LookupError) else "failure",
)
followed = LoadBalancer(registry, "users", strategy=PowerOfTwo(), eject=None)
users = ServiceClient("users", registry, stack=Stack(Retry(on=OSError), Timeout(2)))
others = ServiceClient("users", followed)
ServiceClient("users", registry, stack=Timeout(2), strategy=RoundRobin())


async def pick() -> None:
    async with balancer as opened:
        assert_type(opened, LoadBalancer)
        assert_type(balancer.choose("user:7"), ServiceInstance)
        async with balancer.pick(7, exclude=["users-1", balancer.choose()]) as endpoint:
            assert_type(endpoint, ServiceInstance)
        assert_type(balancer.usable, tuple[ServiceInstance, ...])
        assert_type(balancer.statistics(), BalancerStatistics)
        assert_type(balancer.statistics().endpoints["a"], EndpointStatistics)


async def call() -> None:
    async def fetch(endpoint: ServiceInstance) -> bytes:
        return endpoint.address.encode()

    assert_type(await users.call(fetch), bytes)
    assert_type(await others.call(fetch, key=b"user:7"), bytes)


class First(Strategy):
    """A strategy of one's own."""

    def picker(self, endpoints: Sequence[Endpoint], traffic: Traffic) -> Picker:
        """Return a picker."""
        return FirstPicker(endpoints)


class FirstPicker(Picker):
    """Takes the first."""

    def pick(self, key: str | bytes | int | None) -> Endpoint:
        """Return the first."""
        return self.endpoints[0]
