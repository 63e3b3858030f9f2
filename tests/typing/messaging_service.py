"""Handlers of a service keep their types, and runs tell theirs, under both checkers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, assert_type

from aiopatterns import Broker, HealthChecker, Service, ServiceRegistry, Stack, Timeout
from aiopatterns.messaging import (
    Context,
    HandlerStatistics,
    Message,
    ServiceHealth,
    ServiceRun,
    ServiceState,
    ServiceStatistics,
    asyncapi,
    command,
    event,
    every,
    query,
    run_services,
)


@dataclass
class Wanted:
    id: int


@asynccontextmanager
async def lifespan() -> AsyncGenerator[Mapping[str, Any]]:
    """Give a state."""
    yield {"db": 1}


@asynccontextmanager
async def stateless() -> AsyncGenerator[None]:
    """Give none."""
    yield


users = Service("users", version="1", lifespan=lifespan, stack=Stack(Timeout(1)), needs=["db"])
Service("other", lifespan=stateless, stack=Timeout(1))


@users.query("user.get", concurrency=4, key=lambda message: message.key)
async def get(ctx: Context, wanted: Wanted) -> str:
    """Answer."""
    reply: Any = await ctx.request("db.get", wanted, timeout=1)
    await ctx.publish("user.asked", wanted.id, key="a")
    await ctx.send("db.count")
    assert_type(ctx.message, Message | None)
    assert_type(ctx.remaining, float | None)
    return str(reply)


@users.command("user.drop", stack=Timeout(2))
def drop(wanted: Wanted) -> None:
    """Obey, in a thread."""


@users.event("order.*")
async def note(payload: dict[str, int]) -> None:
    """Hear."""


@users.every(30)
async def tidy() -> int:
    """Tick."""
    return 1


get_: Callable[[Context, Wanted], Coroutine[Any, Any, str]] = get
drop_: Callable[[Wanted], None] = drop


class Mail:
    """A service in the form of a class."""

    @command("mail.send")
    async def send(self, to: str) -> bool:
        """Obey."""
        return bool(to)

    @query("mail.list")
    def listed(self) -> list[str]:
        """Answer."""
        return []

    @event("user.*")
    @every(5)
    async def note(self) -> None:
        """Hear."""


assert_type(Mail().listed(), list[str])
mail = Service.from_object(Mail())
assert_type(mail, Service)
assert_type(asyncapi(users, mail, title="Shop"), dict[str, Any])


async def run(broker: Broker, registry: ServiceRegistry, checker: HealthChecker) -> None:
    """Run them."""
    assert_type(await tidy(), int)
    assert_type(await Mail().send("a"), bool)
    async with users.run(broker, registry, checker=checker, grace=1, propagation=0.1) as it:
        assert_type(it, ServiceRun)
        assert_type(it.health(), ServiceHealth)
        assert_type(it.health().ok, bool)
        assert_type(it.state, ServiceState)
        assert_type(it.statistics(), ServiceStatistics)
        assert_type(it.statistics().handlers["get"], HandlerStatistics)
    await run_services([users, mail], broker, registry=registry)
