"""LoadBalancer: which of several endpoints gets the next call.

::

    endpoints, or a registry's snapshots
                 |
                 v
    Pool: in | ejected | panic | near     --- Strategy --->  the next endpoint
                 ^                                              |  async with balancer.pick()
                 `---- success, failure, latency, calls in flight

What is known of an endpoint comes from its calls: :meth:`LoadBalancer.pick` is an ``async with``
block that says by itself how each went. ``ejection.py`` has when an endpoint is left out and how
it comes back, ``pool.py`` who may be used, and each strategy a file of its own.

Guarantees:

* While there is an endpoint, a call gets one: ejection never empties the pool.
* An endpoint that has recovered is used again: when its ejection is over, the next call tries it.
* Cancelled is neither success nor failure. Nothing is left of a call, however it ends.
* Picking never waits, and does no I/O. An idle balancer has no task, but the watch of its registry.
* An outage of the registry is none of the balancer: it goes on with what was known.

Not guaranteed: balance between processes, each sees its own calls; a picture of endpoints that is
newer than the registry's.

Source: Envoy for ejection and panic, Finagle and kratos for two choices with latency.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress
from typing import TYPE_CHECKING, Final, final

from aiopatterns.cluster.ejection import Ejection
from aiopatterns.cluster.instance import ServiceInstance, service_name
from aiopatterns.cluster.pick import Pick
from aiopatterns.cluster.pool import Pool, Rules
from aiopatterns.cluster.poweroftwo import PowerOfTwo
from aiopatterns.cluster.registry import ServiceRegistry
from aiopatterns.core.errors import BackendError, ClosedError
from aiopatterns.core.lifecycle import Owner
from aiopatterns.core.validate import instance
from aiopatterns.resilience.judge import check_judge

if TYPE_CHECKING:
    from collections.abc import Callable, Collection

    from anyio.abc import TaskGroup

    from aiopatterns.cluster.endpoint import Endpoint
    from aiopatterns.cluster.pool import BalancerStatistics
    from aiopatterns.cluster.strategy import Strategy
    from aiopatterns.core.types import Key
    from aiopatterns.resilience.judge import Judge

__all__ = ["LoadBalancer"]

_TWO: Final = PowerOfTwo()
_EJECT: Final = Ejection()


@final
class LoadBalancer(Owner):
    """Spreads calls over the endpoints of one service.

    Args:
        endpoints: Where the service is: instances, or the registry that knows them, which has to
            be open before the balancer is.
        service: Its name. Needed with a registry; else that of the endpoints.
        strategy: Who gets the next call.
        eject: When an endpoint is left out; None for never.
        zone: Where this process is: endpoints of that zone are preferred while at least half of
            them are in.
        slow_start: Seconds in which the weight of a newcomer grows from a tenth to the whole; 0
            for the whole at once. Endpoints that were there from the beginning are none.
        where: Which instances to use: a function of an instance. One that it raises about is not
            used, which is an event.
        judge: What an ``Exception`` of a call says about the endpoint: ``"failure"``,
            ``"success"`` (it has answered) or ``"ignore"``. By default a failure, unless it is a
            ``RejectedError``.

    Raises:
        ValueError: A value is out of its range; two endpoints have one id, or are of two services.
        TypeError: A value is of another type.

    Example::

        async with LoadBalancer(registry, "users") as balancer:
            async with balancer.pick() as endpoint:
                answer = await session.get(f"http://{endpoint.address}/users/7")
    """

    __slots__ = ("_endpoints", "_judge", "_pool", "_registry", "_rules")

    def __init__(
        self,
        endpoints: Iterable[ServiceInstance] | ServiceRegistry,
        service: str | None = None,
        *,
        strategy: Strategy = _TWO,
        eject: Ejection | None = _EJECT,
        zone: str | None = None,
        slow_start: float = 0.0,
        where: Callable[[ServiceInstance], bool] | None = None,
        judge: Judge | None = None,
    ) -> None:
        self._registry = endpoints if isinstance(endpoints, ServiceRegistry) else None
        self._endpoints: tuple[ServiceInstance, ...] = ()
        if not isinstance(endpoints, ServiceRegistry):
            self._endpoints = _checked(endpoints, service)
        service = _name(self._endpoints, service, needed=self._registry is not None)
        super().__init__(service)
        self._judge = check_judge(judge)
        self._rules = Rules(service, strategy, eject, zone, slow_start, where)
        self._pool = Pool(self._rules)
        self._pool.close(self._refuse)

    def __repr__(self) -> str:
        return f"LoadBalancer({self.name!r}, strategy={self._rules.strategy!r})"

    @property
    def usable(self) -> tuple[ServiceInstance, ...]:
        """The endpoints that calls are spread over at present, by their ids."""
        return tuple(each.instance for each in self._pool.usable)

    def choose(self, key: Key | None = None) -> ServiceInstance:
        """Return the endpoint for a call that will not report how it went.

        For calls whose end nobody sees. Without reports there are no calls in flight, no latency
        and no ejection to go by, and it never is a trial: prefer :meth:`pick`.

        Args:
            key: What the call is about; :class:`ConsistentHash` goes by it.

        Raises:
            NoEndpointError: There is no endpoint.
            ClosedError: The balancer is not open.

        Complexity: that of the strategy.
        """
        pool = self._pool
        turn = pool.turn  # straight to the picker, where that heeds no key
        if turn is not None:
            return turn().instance
        return pool.pick(key).instance

    def pick(self, key: Key | None = None, exclude: Collection[str | ServiceInstance] = ()) -> Pick:
        """Return an ``async with`` block which is one call, and gives its endpoint.

        Args:
            key: What the call is about; :class:`ConsistentHash` goes by it.
            exclude: Instances, or their ids, that are not wanted, such as those that a call has
                tried in vain. When no other is in use, this is one of another zone, one that is
                ejected, one that the registry has lost.

        Raises:
            ClosedError: The balancer is not open.
            NoEndpointError: (on entering the block) There is no endpoint, or all are excluded.

        Cancellation: passes; the call says nothing about its endpoint.

        Complexity: that of the strategy and about 1 us; O(n) with ``exclude``.

        Example::

            async with balancer.pick(exclude=tried) as endpoint:
                tried.append(endpoint)
                with anyio.fail_after(2):  # inside, or a timeout says nothing
                    return await ask(endpoint.address)
        """
        if self._group is None:
            raise self._unopened()
        return Pick(self._pool, self._judge, key, exclude)

    def update(self, endpoints: Iterable[ServiceInstance]) -> None:
        """Use these endpoints from now on, and no others; for those that no registry knows.

        What is known of endpoints that stay is kept, and calls under way end as they would have.

        Args:
            endpoints: All of them; none is allowed.

        Raises:
            ValueError: As for the constructor; or the endpoints come from a registry.
        """
        if self._registry is not None:
            msg = f"endpoints of {self.name!r} come from a registry: register them there"
            raise ValueError(msg)
        self._endpoints = _checked(endpoints, self.name)
        self._pool.update(self._endpoints)

    def refresh(self) -> None:
        """Ask ``where`` anew about every endpoint, when what it goes by has changed.

        Raises:
            ClosedError: The balancer is not open.

        Complexity: O(n), and that of the strategy's picker.
        """
        self._open_group()
        self._pool.refresh()

    def statistics(self) -> BalancerStatistics:
        """Return what is known of the endpoints, and what was done since the balancer was opened."""
        return self._pool.statistics()

    async def _start(self, tasks: TaskGroup) -> None:
        pool = Pool(self._rules)
        if self._registry is None:
            pool.update(self._endpoints)
        else:
            with suppress(BackendError):  # the watch asks again
                snapshot = await self._registry.instances(self.name)
                pool.update(snapshot.instances, snapshot.stale)
            tasks.start_soon(self._follow, self._registry, pool)
        self._pool = pool

    def _settle(self) -> None:
        self._pool.close(self._refuse)

    async def _follow(self, registry: ServiceRegistry, pool: Pool) -> None:
        """Take in what the registry finds; ends with the registry."""
        with suppress(ClosedError):  # it may close before the watch has begun
            async with registry.watch(self.name) as snapshots:
                async for snapshot in snapshots:
                    pool.update(snapshot.instances, snapshot.stale)

    def _refuse(self, key: Key | None) -> Endpoint:
        del key
        raise self._unopened()


def _checked(
    endpoints: Iterable[ServiceInstance], service: str | None
) -> tuple[ServiceInstance, ...]:
    """Return the endpoints if they are instances of one service, each with an id of its own."""
    if not isinstance(endpoints, Iterable):
        msg = f"endpoints must be ServiceInstances or a ServiceRegistry, not {endpoints!r}"
        raise TypeError(msg)
    found: dict[str, ServiceInstance] = {}
    for each in endpoints:
        instance("endpoints", each, ServiceInstance, "ServiceInstances or a ServiceRegistry")
        if each.id in found:
            msg = f"endpoints must have ids of their own, but two are {each.id!r}"
            raise ValueError(msg)
        service = each.service if service is None else service
        if each.service != service:
            msg = f"endpoints must be of one service, {service!r}, but one is of {each.service!r}"
            raise ValueError(msg)
        found[each.id] = each
    return tuple(found.values())


def _name(endpoints: tuple[ServiceInstance, ...], service: str | None, *, needed: bool) -> str:
    """Return the name of the service."""
    if service is not None:
        return service_name("service", service)
    if needed:
        msg = "service must be the name of a service if the endpoints come from a registry"
        raise ValueError(msg)
    return endpoints[0].service if endpoints else "endpoints"
