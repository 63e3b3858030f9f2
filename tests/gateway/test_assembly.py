"""Routes become plans; what they share is opened once, and closed when nobody needs it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from anyio import Event, create_task_group, wait_all_tasks_blocked

from aiopatterns.backends.opening import open_backend
from aiopatterns.cluster.instance import ServiceInstance
from aiopatterns.cluster.registry import ServiceRegistry
from aiopatterns.core.errors import BackendUnavailableError
from aiopatterns.core.rate import Rate
from aiopatterns.gateway.app import Gateway
from aiopatterns.gateway.policy import BreakerRules, HttpCache, RoutePolicy
from aiopatterns.gateway.ratelimit import ClientLimit
from aiopatterns.gateway.routing import Route
from aiopatterns.resilience.circuitstate import CircuitState
from aiopatterns.resilience.sharedlimit import SharedRateLimit
from aiopatterns.resilience.trip import Consecutive, Trip
from tests.gateway.memory import Answer, Client, Handler, MemoryTransport, answering, ask

ONCE = BreakerRules(Trip(Consecutive(1)), open_for=60.0)


@asynccontextmanager
async def gateway(
    *routes: Route, handler: Handler | None = None, services: tuple[str, ...] = (), **rest: Any
) -> AsyncIterator[Gateway]:
    """An open gateway over a registry with one instance of each service."""
    backend = open_backend("memory://")
    async with backend, ServiceRegistry(backend) as registry, create_task_group() as tasks:
        for n, service in enumerate(services):
            await tasks.start(
                _register, registry, ServiceInstance(service, service, 1 + n, id=service)
            )
        transport = MemoryTransport(handler or answering(Answer()))
        async with Gateway(routes, registry=registry, transport=transport, **rest) as door:
            yield door
        tasks.cancel_scope.cancel()


async def _register(
    registry: ServiceRegistry, instance: ServiceInstance, *, task_status: Any
) -> None:
    async with registry.register(instance):
        task_status.started()
        await Event().wait()


def balancers(door: Gateway) -> set[str]:
    assert door._assembly is not None
    return {name for name, each in door._assembly._balancers.items() if each.is_open}


class Away:
    """A backend that cannot be opened."""

    async def __aenter__(self) -> None:
        await wait_all_tasks_blocked()
        raise BackendUnavailableError("nobody answers")

    async def __aexit__(self, *_: object) -> None:
        raise AssertionError


async def test_services_are_found_in_the_registry():
    routes = [
        Route("/users", to="users"),
        Route("/users/vip", to="users"),
        Route("/shop", to="shop"),
    ]
    async with gateway(*routes, services=("users", "shop")) as door:
        assert balancers(door) == {"users", "shop"}
        assert (await ask(door, "GET", "/users/7")).status == 200
        assert (await ask(door, "GET", "/users/vip")).status == 200
        assert {each.endpoint for each in door.statistics().endpoints} == {"users:1"}
        await door.fetch("shop")
        assert balancers(door) == {"users", "shop"}
    transport: Any = door._transport
    assert [dict(each.headers)[b"host"] for each in transport.sent] == [b"users:1"] * 2 + [
        b"shop:2"
    ]


async def test_a_service_that_nobody_runs_is_503():
    async with gateway(Route("/", to="users")) as door:
        reply = await ask(door)
    assert (reply.status, reply.headers[b"retry-after"]) == (503, b"1")


async def test_a_registry_that_is_not_open_is_opened_with_the_gateway():
    registry = ServiceRegistry("memory://")
    door = Gateway(
        [Route("/", to="users")], registry=registry, transport=MemoryTransport(answering(Answer()))
    )
    for _ in range(2):
        async with door:
            assert registry.is_open
            assert (await ask(door)).status == 503
        assert not registry.is_open


async def test_the_backend_of_a_shared_limit_is_opened_with_the_gateway():
    limit = SharedRateLimit(Rate(1, per=3600), backend="memory://", name="api")
    policy = RoutePolicy(rate_limit=limit)
    routes = [Route("/a", to="http://s", policy=policy), Route("/b", to="http://s", policy=policy)]
    async with Gateway(routes, transport=MemoryTransport(answering(Answer()))) as door:
        assert [(await ask(door, "GET", path)).status for path in ("/a", "/b")] == [200, 429]


@pytest.mark.promise("gateway-reload")
async def test_what_stays_the_same_goes_on_with_what_it_knows():
    policy = RoutePolicy(retry=None, breaker=ONCE, rate_limit=Rate(2, per=3600))
    cached = RoutePolicy(cache=HttpCache())
    fresh = Answer(200, [(b"cache-control", b"max-age=60")], b"kept")

    async def handler(outgoing: Any) -> Any:
        return fresh if outgoing.target == b"/kept" else Answer(500)

    def routes() -> list[Route]:
        return [Route("/", to="users", policy=policy), Route("/kept", to="http://k", policy=cached)]

    async with gateway(*routes(), handler=handler, services=("users",)) as door:
        assert (await ask(door)).status == 500
        await ask(door, "GET", "/kept")
        await door.reload(routes())
        assert door.statistics().endpoints[0].circuit is CircuitState.OPEN
        assert (await ask(door)).status == 503
        assert (await ask(door)).status == 429
        assert b"age" in (await ask(door, "GET", "/kept")).headers
        assert balancers(door) == {"users"}
    transport: Any = door._transport
    assert len(transport.sent) == 2


@pytest.mark.promise("gateway-reload")
async def test_what_only_the_old_routes_need_is_closed_after_their_last_request():
    step = Event()

    async def handler(outgoing: Any) -> Any:
        if outgoing.target == b"/old":
            await step.wait()
        return Answer()

    services = ("old", "new", "both", "own")
    before = [Route("/old", to="old"), Route("/both", to="both")]
    async with gateway(*before, handler=handler, services=services) as door:
        await door.fetch("own")
        client = Client("GET", "/old")
        async with create_task_group() as tasks:
            tasks.start_soon(client.ask, door)
            await wait_all_tasks_blocked()
            await door.reload([Route("/new", to="new"), Route("/both", to="both")])
            await wait_all_tasks_blocked()
            assert balancers(door) == {"old", "new", "both", "own"}
            assert (await ask(door, "GET", "/old")).status == 404
            assert (await ask(door, "GET", "/new")).status == 200
            await door.reload([Route("/both", to="both")])
            await wait_all_tasks_blocked()
            assert balancers(door) == {"old", "both", "own"}
            step.set()
        await wait_all_tasks_blocked()
        assert client.reply.status == 200
        assert balancers(door) == {"both", "own"}
        assert door.statistics().requests == 3


@pytest.mark.promise("gateway-reload")
async def test_routes_that_cannot_be_put_in_force_change_nothing(monkeypatch):
    async with gateway(Route("/", to="users"), services=("users",)) as door:
        wrongs: list[tuple[Any, type[Exception]]] = [
            ([Route("/a", to="http://s"), Route("/a", to="http://t")], ValueError),
            ([7], TypeError),
        ]
        for wrong, error in wrongs:
            with pytest.raises(error):
                await door.reload(wrong)
        limit = SharedRateLimit(Rate(1), backend="memory://", name="api")
        monkeypatch.setattr(ClientLimit, "backend", Away())
        with pytest.raises(BackendUnavailableError):
            await door.reload(
                [
                    Route("/a", to="shop"),
                    Route("/b", to="http://s", policy=RoutePolicy(rate_limit=limit)),
                ]
            )
        await wait_all_tasks_blocked()
        assert balancers(door) == {"users"}
        assert [each.path for each in door.routes] == ["/"]
        assert (await ask(door)).status == 200


async def test_reloads_at_once_come_one_after_the_other():
    async with gateway(Route("/", to="a"), services=("a", "b", "c")) as door:
        async with create_task_group() as tasks:
            for service in ("b", "c", "a", "b"):
                tasks.start_soon(door.reload, [Route("/", to=service)])
        await wait_all_tasks_blocked()
        assert balancers(door) == {"b"}
        assert (await ask(door)).status == 200


async def test_a_reload_may_bring_other_defaults():
    async with gateway(Route("/", to="http://s"), handler=answering(Answer(500))) as door:
        for _ in range(2):
            assert (await ask(door)).status == 500
        await door.reload(door.routes, defaults=RoutePolicy(breaker=ONCE, retry=None))
        assert [(await ask(door)).status for _ in range(2)] == [500, 503]
