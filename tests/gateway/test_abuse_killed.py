"""Services that are killed under load, and clients that leave: real processes, real sockets, kill -9."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import pytest

from aiopatterns.cluster.instance import ServiceInstance
from aiopatterns.cluster.registry import ServiceRegistry
from aiopatterns.gateway.app import Gateway
from aiopatterns.gateway.policy import BreakerRules, RoutePolicy
from aiopatterns.gateway.routing import Route
from aiopatterns.resilience.circuitstate import CircuitState
from aiopatterns.resilience.trip import Consecutive, Trip
from tests.gateway.front import TRANSPORTS, Front, served
from tests.gateway.services import Service, Visit

pytestmark = [pytest.mark.real, pytest.mark.untraced, pytest.mark.timeout(60)]

ASKED = (b"GET", b"HEAD", b"DELETE", b"OPTIONS", b"POST")
RULES = RoutePolicy(breaker=BreakerRules(Trip(Consecutive(3)), open_for=0.3))


class Killable:
    """A service's process."""

    port = 0

    async def start(self) -> None:
        script = str(Path(__file__).with_name("serviceprocess.py"))
        self.process = await asyncio.create_subprocess_exec(
            sys.executable, script, str(self.port), stdout=subprocess.PIPE
        )
        assert self.process.stdout is not None
        self.port = int(await self.process.stdout.readline())

    async def kill(self) -> None:
        with suppress(ProcessLookupError):
            self.process.kill()
        await self.process.wait()


class Load:
    """Clients that ask without a pause."""

    def __init__(self, front: Front) -> None:
        self.front = front
        self.statuses: Counter[int] = Counter()
        self.served: Counter[bytes] = Counter()
        self.ends = False

    async def ask(self) -> None:
        client = await self.front.connect()
        number = 0
        while not self.ends:
            number += 1
            await asyncio.sleep(0.004)
            method = ASKED[number % len(ASKED)]
            more = b"Idempotency-Key: %d\r\n" % number if method == b"POST" else b""
            await client.send(method + b" /x HTTP/1.1\r\nHost: a\r\n" + more + b"\r\n")
            if method == b"HEAD":
                head = await client.reader.readuntil(b"\r\n\r\n")
                self.statuses[int(head[9:12])] += 1
                continue
            status, _, body = await client.answer()
            self.statuses[status] += 1
            self.served[body] += 1

    async def until_unserved(self, port: int) -> None:
        """Wait until nothing comes from there any more."""
        async with asyncio.timeout(10):
            before = -1
            while self.served[b"%d" % port] > before:
                before = self.served[b"%d" % port]
                await asyncio.sleep(0.1)


def circuits(gateway: Gateway) -> dict[str, CircuitState | None]:
    return {each.endpoint: each.circuit for each in gateway.statistics().endpoints}


@pytest.mark.promise("gateway-killed-instance")
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_instances_killed_under_load_fail_no_request_that_can_be_repeated(transport: str):
    services = [Killable() for _ in range(3)]
    await asyncio.gather(*[each.start() for each in services])
    try:
        async with AsyncExitStack() as stack:
            registry = await stack.enter_async_context(ServiceRegistry("memory://"))
            for number, each in enumerate(services):
                instance = ServiceInstance("shop", "127.0.0.1", each.port, id=f"s{number}")
                await stack.enter_async_context(registry.register(instance))
            gateway = Gateway(
                [Route("/", to="shop", policy=RULES)], registry=registry, transport=transport
            )
            front = await stack.enter_async_context(served(gateway))
            load = Load(front)
            async with asyncio.TaskGroup() as tasks:
                for _ in range(6):
                    tasks.create_task(load.ask())
                for each in services[:2]:
                    await asyncio.sleep(0.2)
                    await each.kill()
                    await load.until_unserved(each.port)
                    await each.start()
                others = f"127.0.0.1:{services[2].port}"
                assert circuits(gateway)[others] is CircuitState.CLOSED
                load.ends = True
            assert set(load.statuses) == {200}, load.statuses
            figures = gateway.statistics()
            assert figures.answers == {200: load.statuses[200]}
            assert figures.cut_short == 0
            assert 0 < figures.retries < load.statuses[200] / 5
    finally:
        await asyncio.gather(*[each.kill() for each in services])


@pytest.mark.promise("gateway-circuits")
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_the_circuit_of_a_killed_endpoint_opens_and_closes_alone(transport: str):
    killed, other = Killable(), Killable()
    await asyncio.gather(killed.start(), other.start())
    try:
        routes = [
            Route("/killed", to=f"http://127.0.0.1:{killed.port}", policy=RULES),
            Route("/other", to=f"http://127.0.0.1:{other.port}", policy=RULES),
        ]
        gateway = Gateway(routes, transport=transport)

        def state(each: Killable) -> CircuitState | None:
            return circuits(gateway)[f"127.0.0.1:{each.port}"]

        async with served(gateway) as front:

            async def ask(path: bytes) -> int:
                client = await front.connect(b"GET " + path + b" HTTP/1.1\r\nHost: a\r\n\r\n")
                found = await client.answer()
                client.close()
                return found[0]

            async def until(wanted: CircuitState) -> None:
                async with asyncio.timeout(20):
                    while state(killed) is not wanted:
                        assert await ask(b"/killed") in {200, 502, 503}
                        await asyncio.sleep(0.02)

            assert [await ask(b"/killed"), await ask(b"/other")] == [200, 200]
            await killed.kill()
            await until(CircuitState.OPEN)
            assert await ask(b"/killed") == 503
            assert await ask(b"/other") == 200
            await killed.start()
            await until(CircuitState.CLOSED)
            assert await ask(b"/killed") == 200
            assert state(other) is CircuitState.CLOSED
    finally:
        await asyncio.gather(killed.kill(), other.kill())


@pytest.mark.promise("gateway-disconnect")
@pytest.mark.parametrize("transport", TRANSPORTS)
async def test_clients_that_leave_end_what_is_done_for_them_and_count_no_failure(transport: str):
    async def silent(visit: Visit) -> None:
        await visit.head()
        await visit.ended()

    async with Service(silent) as service:
        url = f"http://127.0.0.1:{service.port}"
        gateway = Gateway([Route("/", to=url, policy=RULES)], transport=transport)
        async with served(gateway) as front:
            for count in range(0, 12, 4):
                clients = [
                    await front.connect(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n") for _ in range(4)
                ]
                while len(service.heads) < count + 4:
                    await asyncio.sleep(0.01)
                for client in clients:
                    client.close()
                await service.closed(count + 4)
            async with asyncio.timeout(5):
                while gateway.statistics().in_flight:
                    await asyncio.sleep(0.01)
            assert gateway.statistics().answers == {499: 12}
            assert set(circuits(gateway).values()) == {CircuitState.CLOSED}
