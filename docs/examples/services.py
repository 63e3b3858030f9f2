"""Three services that register, are found, balanced, checked and killed, with no error to a customer.

A shop sells what others know the price and the stock of::

    customer --> shop --+--> prices-1, prices-2, prices-3
                        '--> stock-1, stock-2

Each instance serves a line protocol over TCP and registers itself. The shop finds the others by a
service client; the customer's side finds the shop in the same way. Then one instance falls ill: its
health check fails, a balancer leaves it out and takes it back when it is well. Another one is killed
while customers buy: attempts that meet it go to another, and soon it is in no list any more.

On memory all instances are tasks of this process; on Redis each is a process of its own, and the
kill is a SIGKILL.

Run: python docs/examples/services.py [URL]      (memory:// by default, or redis://...)
"""

from __future__ import annotations

import asyncio
import signal
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import anyio

from aiopatterns import HealthChecker, LoadBalancer, Retry, ServiceRegistry, Stack, Timeout
from aiopatterns.backends import Backend, open_backend
from aiopatterns.cluster import ServiceClient, ServiceInstance
from aiopatterns.resilience import Constant

SERVICES = {"prices": 3, "stock": 2, "shop": 1}
NAMES = [f"{name}-{number + 1}" for name, total in SERVICES.items() for number in range(total)]
PRICES = {"tea": 3, "salt": 1, "oil": 7}
TTL = 1.5  # shorter than usual, for the example is to be over soon
# Connections that are refused or cut, and attempts that take longer than a second, go elsewhere.
STACK = Stack(Timeout(10), Retry(on=OSError, attempts=4, backoff=Constant(0.02)), Timeout(1))


async def ask(endpoint: ServiceInstance, line: str) -> str:
    """Send one line to an instance; returns its answer."""
    reader, writer = await asyncio.open_connection(endpoint.host, endpoint.port)
    try:
        writer.write(f"{line}\n".encode())
        answer = (await reader.readline()).decode().strip()
    finally:
        writer.close()
    if not answer:
        raise ConnectionResetError(f"{endpoint.id} hung up")
    return answer


class Instance:
    """One instance of one of the services."""

    def __init__(self, name: str, registry: ServiceRegistry) -> None:
        self.name = name
        self.well = True
        self.prices = ServiceClient("prices", registry, stack=STACK)
        self.stock = ServiceClient("stock", registry, stack=STACK)

    async def talk(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Answer one line."""
        line = (await reader.readline()).decode()
        writer.write(f"{await self.answer(line)}\n".encode())
        writer.close()

    async def answer(self, line: str) -> str:
        """Do what a line says."""
        match line.split():
            case ["health"]:
                return "well" if self.well else "ill"
            case ["become", state]:
                self.well = state == "well"
                return "done"
            case ["price", item]:
                return f"{PRICES[item]} {self.name}"
            case ["take", _]:
                return f"taken {self.name}"
            case ["buy", item]:
                price = await self.prices.call(partial(ask, line=f"price {item}"))
                taken = await self.stock.call(partial(ask, line=f"take {item}"))
                return f"{price} {taken.split()[1]}"
        return "pardon?"


async def serve(name: str, backend: Backend | str) -> None:
    """Be one instance, until cancelled."""
    async with ServiceRegistry(backend, ttl=TTL, propagation=0.1) as registry:
        instance = Instance(name, registry)
        server = await asyncio.start_server(instance.talk, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        record = ServiceInstance(name.partition("-")[0], host, port, id=name)
        async with server, registry.register(record):
            await anyio.sleep_forever()


class Tasks:
    """Instances as tasks of this process; to kill one is to cancel it."""

    def __init__(self, group: anyio.abc.TaskGroup, backend: Backend) -> None:
        self._scopes = {name: anyio.CancelScope() for name in NAMES}
        for name in NAMES:
            group.start_soon(self._run, name, backend)

    async def _run(self, name: str, backend: Backend) -> None:
        with self._scopes[name]:
            await serve(name, backend)

    def kill(self, name: str) -> None:
        """Stop one at once."""
        self._scopes[name].cancel()

    async def stop(self) -> None:
        """Stop all."""
        for scope in self._scopes.values():
            scope.cancel()


class Processes:
    """Instances as processes."""

    def __init__(self, running: dict[str, asyncio.subprocess.Process]) -> None:
        self._running = running

    def kill(self, name: str) -> None:
        """Send SIGKILL: there is no goodbye."""
        self._running[name].kill()

    async def stop(self) -> None:
        """Ask all to leave, and wait for them."""
        for process in self._running.values():
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
        for process in self._running.values():
            await process.wait()


@asynccontextmanager
async def fleet(url: str, backend: Backend) -> AsyncIterator[Tasks | Processes]:
    """Run all instances."""
    if url.startswith("memory:"):
        async with anyio.create_task_group() as group:
            tasks = Tasks(group, backend)
            yield tasks
            await tasks.stop()
    else:
        spawn = partial(asyncio.create_subprocess_exec, sys.executable, __file__, url)
        processes = Processes({name: await spawn(name) for name in NAMES})
        try:
            yield processes
        finally:
            await processes.stop()


async def run_one(name: str, url: str) -> None:
    """Be one instance in a process of its own, until SIGTERM."""
    async with anyio.create_task_group() as group:
        group.start_soon(serve, name, url)
        with anyio.open_signal_receiver(signal.SIGTERM) as signals:
            async for _ in signals:
                group.cancel_scope.cancel()


async def find(registry: ServiceRegistry) -> None:
    """Wait until all are there."""
    found: dict[str, int] = {}
    with anyio.fail_after(30):
        while found != SERVICES:
            await asyncio.sleep(0.05)
            found = {name: len((await registry.instances(name)).instances) for name in SERVICES}
    print("registered:", ", ".join(f"{total} {name}" for name, total in found.items()))


async def buy(shop: ServiceClient, times: int) -> Counter[str]:
    """Buy so often; returns how often each instance had a part in it."""
    parts: Counter[str] = Counter()
    for number in range(times):
        item = list(PRICES)[number % len(PRICES)]
        price, *served = (await shop.call(partial(ask, line=f"buy {item}"))).split()
        assert int(price) == PRICES[item]
        parts.update(served)
    return parts


async def be_ill(registry: ServiceRegistry) -> None:
    """One falls ill: its check tells the balancer, which leaves it out until it is well."""
    everybody = {each.id: each for each in (await registry.instances("prices")).instances}

    async def check(endpoint: ServiceInstance) -> bool:
        return await ask(endpoint, "health") == "well"

    checks = {name: partial(check, each) for name, each in everybody.items()}
    # What counts here is the answer, not how fast it comes on a busy machine.
    health = HealthChecker(checks, interval=0.1, rise=2, fall=2, dwell=0.1, down_after=30)
    balancer = LoadBalancer(registry, "prices", where=lambda each: each.id not in health.unhealthy)

    async def heeded(names: set[str]) -> None:
        with anyio.fail_after(20):
            while {each.id for each in balancer.usable} != names:
                await asyncio.sleep(0.02)

    async with health, balancer:
        health.on_change(lambda _: balancer.refresh())
        await heeded(set(everybody))
        await ask(everybody["prices-2"], "become ill")
        await heeded({"prices-1", "prices-3"})
        assert "prices-2" not in {balancer.choose().id for _ in range(50)}
        await ask(everybody["prices-2"], "become well")
        await heeded(set(everybody))
    print("prices-2 was ill, was left out, and is used again")


async def be_killed(
    registry: ServiceRegistry, shop: ServiceClient, kill: Tasks | Processes
) -> None:
    """One is killed while customers buy: nobody sees an error, and soon it is gone."""
    killed_at = asyncio.get_running_loop().time()
    kill.kill("prices-1")
    bought = 0
    while any(each.id == "prices-1" for each in (await registry.instances("prices")).instances):
        await buy(shop, 5)
        bought += 5
        await asyncio.sleep(0.02)
    seconds = asyncio.get_running_loop().time() - killed_at
    assert seconds <= TTL + 3, seconds  # a second after its lease, and then we have to look
    assert "prices-1" not in await buy(shop, 30)
    print(f"prices-1 was killed; {bought + 30} purchases, no error; out of the list in time")


async def main(url: str) -> None:
    """Run the fleet, and be its customer."""
    backend = open_backend(url)
    async with backend, ServiceRegistry(backend, ttl=TTL) as registry:
        async with fleet(url, backend) as instances:
            await find(registry)
            shop = ServiceClient("shop", registry, stack=STACK)
            parts = await buy(shop, 60)
            print("60 purchases:", ", ".join(f"{name} {parts[name]}" for name in sorted(parts)))
            assert set(parts) == {name for name in NAMES if not name.startswith("shop")}
            await be_ill(registry)
            await be_killed(registry, shop, instances)
        assert (await registry.instances("shop")).instances == ()
    print("all have left")


if __name__ == "__main__":
    if len(sys.argv) > 2:
        asyncio.run(run_one(sys.argv[2], sys.argv[1]))
    else:
        asyncio.run(main(sys.argv[1] if len(sys.argv) > 1 else "memory://"))
