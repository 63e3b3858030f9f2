"""Assembly: routes become plans, and what they share is opened once and kept.

::

    routes --- build ---> Table (router of plans)
                |            |
                |            '---- upstreams, limits, caches: by what they are made of
                '--- balancers by service, key sets by address, the registry, backends

Another set of routes may come while requests are under way. A new table is built beside the old one
and takes its place in one step; requests go on with the table they began with, and what only the old
one needs is closed when the last of them has ended. What both have is the same object, with all that
it knows: open circuits, used-up limits, kept answers.

Guarantees: a table that cannot be built changes nothing.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, final

from anyio import TASK_STATUS_IGNORED, Event, Lock

from aiopatterns.cluster.balancer import LoadBalancer
from aiopatterns.gateway.exchange import Bells
from aiopatterns.gateway.httpcache import CacheStore
from aiopatterns.gateway.plan import Plan, function_stage
from aiopatterns.gateway.proxy import Proxy
from aiopatterns.gateway.ratelimit import ClientLimit
from aiopatterns.gateway.routing import Route, Router
from aiopatterns.gateway.upstream import Upstream, judge

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from contextlib import AbstractAsyncContextManager

    from anyio.abc import TaskGroup, TaskStatus

    from aiopatterns.cluster.registry import ServiceRegistry
    from aiopatterns.gateway.jwks import KeyDirectory
    from aiopatterns.gateway.policy import RoutePolicy
    from aiopatterns.gateway.request import Request, Response
    from aiopatterns.gateway.transport import Transport

__all__ = ["Assembly", "Kept", "Table"]

# Targets of ``Gateway.fetch`` that are no routes', and are remembered.
_MOST_TARGETS: Final = 256


@final
class Kept:
    """Something that is open in a task of its own, so that anybody may close it.

    Args:
        owner: What it is.
    """

    __slots__ = ("_ended", "_owner", "_stop")

    def __init__(self, owner: AbstractAsyncContextManager[Any]) -> None:
        self._owner = owner
        self._stop = Event()
        self._ended = Event()

    async def run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Open it, and close it when told to."""
        try:
            async with self._owner:
                task_status.started()
                await self._stop.wait()
        finally:
            self._ended.set()

    async def close(self) -> None:
        """Close it and wait until that is done."""
        self._stop.set()
        await self._ended.wait()


@final
class Table:
    """Routes in force, the requests that go by them, and what the routes have in common.

    Attributes:
        router: Finds the plan of a request.
        in_flight: Requests that go by it.
        upstreams: Where the routes lead, by target, breaker rules and bulkhead.
        limits: Limits of clients, by route.
        caches: Answers that are kept, by the prefix of their route and what else it is.
        bells: Timers, by timeouts.
    """

    __slots__ = ("_idle", "bells", "caches", "in_flight", "limits", "router", "upstreams")

    def __init__(self) -> None:
        self.router: Router[Plan] = Router(())
        self.in_flight: int = 0
        self.upstreams: dict[object, Upstream] = {}
        self.limits: dict[object, ClientLimit] = {}
        self.caches: dict[tuple[str, object], CacheStore] = {}
        self.bells: dict[object, Bells] = {}
        self._idle: Event | None = None

    def leave(self) -> None:
        """A request has ended."""
        self.in_flight -= 1
        if self._idle is not None and not self.in_flight:
            self._idle.set()

    async def idle(self) -> None:
        """Wait until no request goes by it."""
        if self.in_flight:
            self._idle = self._idle or Event()
            await self._idle.wait()


@final
class Assembly:
    """What one run of a gateway has open.

    Args:
        tasks: Where what is open lives.
        transport: How requests leave.
        registry: Where services are found, if there are any.
        keys: Key sets of token issuers.
        count_retry: Called for each attempt that is not the first.
    """

    __slots__ = (
        "_balancers",
        "_count_retry",
        "_keys",
        "_lock",
        "_open",
        "_own",
        "_registry",
        "_tables",
        "_tasks",
        "_transport",
    )

    def __init__(
        self,
        tasks: TaskGroup,
        transport: Transport,
        registry: ServiceRegistry | None,
        keys: KeyDirectory,
        count_retry: Callable[[], object],
    ) -> None:
        self._tasks = tasks
        self._transport = transport
        self._registry = registry
        self._keys = keys
        self._count_retry = count_retry
        self._lock = Lock()
        self._open: dict[object, Kept] = {}
        self._balancers: dict[str, LoadBalancer] = {}
        self._tables: list[Table] = []  # those that requests go by, and those that are built
        self._own: dict[str, Upstream] = {}  # targets of the gateway's own calls

    @property
    def upstreams(self) -> list[Upstream]:
        """Where its tables lead, each once."""
        found = {id(each): each for table in self._tables for each in table.upstreams.values()}
        return [*found.values(), *self._own.values()]

    async def open(self) -> None:
        """Open what all tables need."""
        await self._keep(self._transport, self._transport)
        if self._registry is not None and not self._registry.is_open:
            await self._keep(self._registry, self._registry)
        self._keys.open(self._tasks)

    async def close(self) -> None:
        """Wait for the requests, then close everything, what was opened last first."""
        for table in [*self._tables]:
            await table.idle()
        self._keys.close()
        while self._open:
            _, kept = self._open.popitem()
            await kept.close()

    async def build(
        self, routes: Sequence[Route], defaults: RoutePolicy, before: Table | None
    ) -> Table:
        """Return a table of ``routes``; what ``before`` has as well is taken over.

        Raises:
            ValueError: Two routes are for the same requests.
            BackendError: A backend that a shared limit needs is away.

        Cancellation: what was opened for it is closed.
        """
        table = Table()
        self._tables.append(table)
        try:
            pairs = [
                (route, await self._plan(route, route.policy or defaults, table, before))
                for route in routes
            ]
            table.router = Router(pairs)
        except BaseException:
            self._tables.remove(table)
            self._tasks.start_soon(self._sweep)
            raise
        return table

    async def retire(self, old: Table) -> None:
        """Close what only ``old`` needs, once no request goes by it."""
        await old.idle()
        self._tables.remove(old)
        await self._sweep()

    async def proxy(self, target: str, policy: RoutePolicy) -> Proxy:
        """Return a proxy to a service or base URL, for calls of the gateway's own."""
        upstream = self._own.get(target)
        if upstream is None:
            balancer = None if "://" in target else await self._balancer(target)
            upstream = Upstream(target, balancer, policy.breaker, policy.bulkhead)
            while len(self._own) >= _MOST_TARGETS:
                del self._own[next(iter(self._own))]
            self._own[target] = upstream
        return self._proxy(Route("/", to=target), policy, upstream)

    async def _plan(
        self, route: Route, policy: RoutePolicy, table: Table, before: Table | None
    ) -> Plan:
        bells = table.bells.get(policy.timeouts)
        if bells is None:
            bells = table.bells[policy.timeouts] = Bells(policy.timeouts, self._tasks)
        bind = getattr(route.auth, "bind", None)
        if bind is not None:
            bind(self._keys)
        forward: Callable[[Request], Awaitable[Response]]
        if isinstance(route.to, str):
            upstream = await self._upstream(route.to, policy, table, before)
            proxy = self._proxy(route, policy, upstream)
            forward = proxy.forward
        else:
            proxy = None
            forward = function_stage(route.to)
        limit = await self._limit(route, policy, table, before)
        cache = _cache(route, policy, table, before, self._tasks)
        return Plan(
            route,
            forward,
            bells=bells,
            limit=limit,
            cache=cache,
            caches=table.caches,
            proxy=proxy,
        )

    def _proxy(self, route: Route, policy: RoutePolicy, upstream: Upstream) -> Proxy:
        return Proxy(
            route,
            policy,
            upstream=upstream,
            transport=self._transport,
            count_retry=self._count_retry,
        )

    async def _upstream(
        self, target: str, policy: RoutePolicy, table: Table, before: Table | None
    ) -> Upstream:
        key = (target, policy.breaker, policy.bulkhead)
        found = table.upstreams.get(key) or (before and before.upstreams.get(key))
        if not found:
            balancer = None if "://" in target else await self._balancer(target)
            found = Upstream(target, balancer, policy.breaker, policy.bulkhead)
        table.upstreams[key] = found
        return found

    async def _balancer(self, service: str) -> LoadBalancer:
        """Return the balancer of a service; an open one."""
        if self._registry is None:
            msg = f"registry must be given for the service {service!r} to be found"
            raise ValueError(msg)
        async with self._lock:
            balancer = self._balancers.get(service)
            if balancer is None:
                balancer = LoadBalancer(self._registry, service, judge=judge)
                await self._keep(service, balancer)
                self._balancers[service] = balancer
            return balancer

    async def _limit(
        self, route: Route, policy: RoutePolicy, table: Table, before: Table | None
    ) -> ClientLimit | None:
        if policy.rate_limit is None:
            return None
        key = (route.host, route.path, route.methods, policy.rate_limit)
        limit = before and before.limits.get(key)
        if not limit:
            limit = ClientLimit(policy.rate_limit)
            if limit.backend is not None and limit.backend not in self._open:
                await self._keep(limit.backend, limit.backend)
        table.limits[key] = limit
        return limit

    async def _keep(self, key: object, owner: AbstractAsyncContextManager[Any]) -> None:
        kept = Kept(owner)
        await self._tasks.start(kept.run)
        self._open[key] = kept

    async def _sweep(self) -> None:
        """Close the balancers that no table needs."""
        needed = {each.target for table in self._tables for each in table.upstreams.values()}
        for service in self._balancers.keys() - needed - self._own.keys():
            del self._balancers[service]
            await self._open.pop(service).close()


def _cache(
    route: Route, policy: RoutePolicy, table: Table, before: Table | None, tasks: TaskGroup
) -> CacheStore | None:
    if policy.cache is None:
        return None
    key = (route.path, (route.host, route.methods, route.to, route.auth, policy.cache))
    store = before and before.caches.get(key)
    if not store:
        store = CacheStore(policy.cache)
        store.open(tasks)
    table.caches[key] = store
    return store
