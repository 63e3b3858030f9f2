"""Three services: users, orders and notifications, as one program or as three processes.

::

    customer -- order.create --> orders --- user.get ---> users
                                   |
                                   '-- order.created --> notifications     (an event: nobody waits)
                                                             |
    customer -- notification.list ---------------------------'

An order for somebody whom nobody knows fails with the error of the users' service, through the one
that was asked. Every line of the log bears the correlation id of the customer's request, in whichever
process it was written.

In memory all three run in this process; on Redis each is a process of its own, and one of them is
stopped and started again while orders come in.

Run: python docs/examples/orders.py [URL]      (memory:// by default, or redis://...)
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncGenerator, Mapping, MutableMapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from typing import Any

import anyio
import structlog

from aiopatterns import Broker, NoHandlersError, RemoteError, Retry, Service, Stack, Timeout
from aiopatterns.backends import Backend, open_backend
from aiopatterns.core.context import bind_correlation, correlation_id
from aiopatterns.messaging import Context, event, every, query, run_services
from aiopatterns.resilience import Constant

log = structlog.get_logger()


# ----------------------------------------------------------------- what they say to each other


@dataclass
class Wanted:
    id: int


@dataclass
class User:
    id: int
    name: str
    email: str


@dataclass
class NewOrder:
    user: int
    item: str
    amount: int = 1


@dataclass
class Order:
    id: int
    user: User
    item: str
    amount: int


class UnknownUserError(LookupError):
    """Nobody has this id."""

    code = "unknown_user"


# ------------------------------------------------------------------------------------- users

users = Service("users", version="1.0")
PEOPLE = {1: User(1, "Ann", "ann@example.org"), 2: User(2, "Bob", "bob@example.org")}


@users.query("user.get")
async def get_user(wanted: Wanted) -> User:
    """Return somebody."""
    log.info("user.get", user=wanted.id)
    if wanted.id not in PEOPLE:
        raise UnknownUserError(f"no user {wanted.id}")
    return PEOPLE[wanted.id]


# ------------------------------------------------------------------------------------ orders


@asynccontextmanager
async def order_book() -> AsyncGenerator[Mapping[str, Any]]:
    """Stand for a database: what a lifespan yields is ctx.state."""
    yield {"numbers": count(1), "orders": dict[int, Order]()}


# A service that is just being started again is asked once more.
ASKING = Stack(Timeout(10), Retry(on=NoHandlersError, attempts=50, backoff=Constant(0.1)))

orders = Service("orders", version="1.0", lifespan=order_book, needs=["users"], stack=ASKING)


@orders.command("order.create")
async def create_order(ctx: Context, new: NewOrder) -> Order:
    """Create an order for somebody who is known, and tell all who want to know."""
    user = User(**await ctx.request("user.get", Wanted(new.user)))
    order = Order(next(ctx.state["numbers"]), user, new.item, new.amount)
    ctx.state["orders"][order.id] = order
    log.info("order.create", order=order.id)
    await ctx.publish("order.created", order)
    return order


@orders.query("order.get")
async def get_order(ctx: Context, wanted: Wanted) -> Order | None:
    """Return an order, or None."""
    found: Order | None = ctx.state["orders"].get(wanted.id)
    return found


# ----------------------------------------------------------------------------- notifications


class Notifications:
    """The same in the form of a class."""

    name = "notifications"
    version = "1.0"

    def __init__(self) -> None:
        self.sent: list[str] = []

    @event("order.created", key=lambda message: str(message.payload["user"]["id"]))
    async def notify(self, order: Order) -> None:
        """Send a mail, in the order of events for each user."""
        log.info("mail", to=order.user.email)
        self.sent.append(f"{order.user.name}: {order.amount} {order.item}")

    @query("notification.list")
    async def listed(self) -> list[str]:
        """Return what was sent."""
        return self.sent

    @every(60)
    async def tidy(self) -> None:
        """Keep the last hundred."""
        del self.sent[:-100]


SERVICES = {
    "users": users,
    "orders": orders,
    "notifications": Service.from_object(Notifications()),
}


# ---------------------------------------------------------------------------- running them all


def with_correlation(_: object, __: str, entry: MutableMapping[str, Any]) -> Mapping[str, Any]:
    """Let every line of the log say for which request it was written."""
    return {**entry, "correlation_id": correlation_id() or "-"}


def set_up_log(process: str) -> None:
    """Write one line of key=value pairs for each entry."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            with_correlation,
            lambda _, __, entry: {"process": process, **entry},
            structlog.processors.KeyValueRenderer(key_order=["process", "event", "correlation_id"]),
        ],
        logger_factory=structlog.PrintLoggerFactory(sys.stdout),
    )


async def run_one(name: str, url: str) -> None:
    """Be one service in a process of its own, until SIGTERM."""
    set_up_log(name)
    await run_services([SERVICES[name]], Broker(url), propagation=0.05)


class Processes:
    """The services as processes."""

    def __init__(self, url: str) -> None:
        self._spawn = partial(asyncio.create_subprocess_exec, sys.executable, __file__, url)
        self._running: dict[str, asyncio.subprocess.Process] = {}

    async def start(self, name: str) -> None:
        """Start one."""
        self._running[name] = await self._spawn(name)

    async def stop(self, name: str) -> None:
        """Ask one to leave; it finishes what it has accepted, and ends without an error."""
        process = self._running.pop(name)
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0

    async def stop_all(self) -> None:
        """Ask all to leave."""
        for name in [*self._running]:
            await self.stop(name)


@asynccontextmanager
async def running(url: str, backend: Backend) -> AsyncGenerator[Processes | None]:
    """Run the three, in this process or in three others."""
    if url.startswith("memory:"):
        stop = anyio.Event()
        async with anyio.create_task_group() as tasks:
            host = partial(run_services, SERVICES.values(), stop=stop, propagation=0)

            async def ready(*, task_status: anyio.abc.TaskStatus[Any]) -> None:
                await host(Broker(backend), task_status=task_status)

            await tasks.start(ready)
            yield None
            stop.set()
        return
    processes = Processes(url)
    for name in reversed(SERVICES):  # in any order: each waits for what it needs
        await processes.start(name)
    try:
        yield processes
    finally:
        await processes.stop_all()


async def all_there(customer: Broker) -> None:
    """Wait until all three say that they are there."""
    absent = Retry(on=(NoHandlersError, OSError), attempts=None, backoff=Constant(0.05))
    patient = Stack(Timeout(30), absent, Timeout(1))
    for name in SERVICES:
        told = await patient.call(customer.request, f"$SRV.PING.{name}")
        print(f"{told['name']} {told['version']} is {told['state']}")


async def be_refused(customer: Broker, order: object, code: str) -> None:
    """Order what cannot be had."""
    try:
        await customer.request("order.create", order)
    except RemoteError as error:
        print(f"refused ({error.code}): {error}")
        if error.code != code:
            raise


async def shop(customer: Broker) -> None:
    """Order something, for somebody who is known and for somebody who is not."""
    with bind_correlation("request-17"):
        order = await customer.request("order.create", NewOrder(1, "tea", 2))
    print(f"order {order['id']} for {order['user']['name']}")
    with bind_correlation("request-18"):
        await be_refused(customer, NewOrder(3, "tea"), "unknown_user")
    await be_refused(customer, {"user": "Ann"}, "bad_payload")
    assert (await customer.request("order.get", Wanted(order["id"]))) == order
    with anyio.fail_after(10):
        while await customer.request("notification.list") != ["Ann: 2 tea"]:
            await asyncio.sleep(0.01)
    print("notified: Ann: 2 tea")


async def restart_users(customer: Broker, processes: Processes) -> None:
    """Stop a service and start it again while orders come in: none of them fails."""
    created: list[int] = []

    async def order_one(number: int) -> None:
        order = await customer.request("order.create", NewOrder(2, f"salt {number}"), timeout=20)
        created.append(order["id"])

    async with anyio.create_task_group() as tasks:
        for number in range(40):
            tasks.start_soon(order_one, number)
            if number == 10:
                tasks.start_soon(processes.stop, "users")
            if number == 30:
                await processes.start("users")
            await asyncio.sleep(0.01)
    assert len(set(created)) == 40
    print("users was restarted; 40 orders, no error")


async def main(url: str) -> None:
    """Run the services, and be their customer."""
    set_up_log("customer")
    backend = open_backend(url)
    async with backend, Broker(backend) as customer:
        async with running(url, backend) as processes:
            await all_there(customer)
            await shop(customer)
            if processes is not None:
                await restart_users(customer, processes)
            told = await customer.request("$SRV.STATS.orders")
            create = next(each for each in told["handlers"] if each["name"] == "create_order")
            print(f"order.create: {create['done']} done, {create['failed']} failed")
        try:
            await customer.request("user.get", Wanted(1))
        except NoHandlersError:
            print("all have left")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        asyncio.run(run_one(sys.argv[2], sys.argv[1]))
    else:
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "memory://"))
