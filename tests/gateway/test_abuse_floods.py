"""Floods: the gateway's process stays small and goes on serving others, whatever many clients do.

The gateway runs in a process of its own, whose resident memory is what is bounded here.
"""

from __future__ import annotations

import asyncio
import os
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest

from tests.gateway.front import Client
from tests.gateway.services import OK, Service, Visit

pytestmark = [pytest.mark.real, pytest.mark.untraced, pytest.mark.timeout(90)]

MIB = 1024 * 1024
GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
LARGE = MIB - 4096


async def upstream(visit: Visit) -> None:
    """Reads no body of ``/slow``; sends a large answer to ``/kept``."""
    while True:
        head = await visit.head()
        if head.startswith(b"POST /slow"):
            await visit.ended()
        elif head.startswith(b"GET /kept"):
            start = b"HTTP/1.1 200 OK\r\ncache-control: max-age=60\r\ncontent-length: %d\r\n\r\n"
            await visit.send(start % LARGE + b"x" * LARGE)
        else:
            await visit.send(OK)


class Flooded:
    """A gateway in another process, and its clients."""

    def __init__(self, port: int, pid: int) -> None:
        self.port = port
        self.pid = pid
        self.clients: list[Client] = []

    async def connect(self, data: bytes) -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port))
        self.clients.append(client)
        client.writer.write(data)
        return client

    async def serves(self, count: int = 50) -> float:
        """Ask as somebody else, each time anew; the longest that an answer took."""
        longest = 0.0
        for _ in range(count):
            began = time.monotonic()
            client = await self.connect(GET)
            assert (await client.answer())[::2] == (200, b"hello")
            longest = max(longest, time.monotonic() - began)
            self.clients.pop().close()
        return longest

    def memory(self) -> int:
        """Bytes of resident memory."""
        if not Path("/proc/self/status").exists():
            shown = subprocess.check_output(["ps", "-o", "rss=", "-p", str(self.pid)])
            return int(shown) * 1024
        status = Path(f"/proc/{self.pid}/status").read_text("utf-8")
        found = re.search(r"VmRSS:\s+(\d+)", status)
        assert found is not None
        return int(found[1]) * 1024


@asynccontextmanager
async def flooded() -> AsyncIterator[Flooded]:
    root = Path(__file__).parents[2]
    async with Service(upstream) as service:
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            str(Path(__file__).with_name("gatewayprocess.py")),
            str(service.port),
            stdout=subprocess.PIPE,
            env={**os.environ, "PYTHONPATH": str(root)},
        )
        assert process.stdout is not None
        here = Flooded(int(await process.stdout.readline()), process.pid)
        try:
            await here.serves()
            yield here
        finally:
            for client in here.clients:
                client.writer.transport.abort()
            process.kill()
            await process.wait()


def under(flood: Callable[[Flooded], Awaitable[None]], bound: int) -> None:
    """Run a flood; the gateway grows by less than the bound, and answers others all the time."""

    async def run() -> None:
        async with flooded() as here:
            before = here.memory()
            await flood(here)
            longest = await here.serves()
            grown = here.memory() - before
            print(f"grown by {grown / MIB:.1f} MiB, others waited {longest * 1000:.0f} ms at most")
            assert grown < bound, f"{grown / MIB:.1f} MiB"
            assert longest < 10

    asyncio.run(run())


@pytest.mark.promise("gateway-slow-clients")
def test_500_slow_clients_do_not_slow_others_down():
    async def flood(here: Flooded) -> None:
        slow = [await here.connect(b"GET / HTTP/1.1\r\nHost: a\r\n") for _ in range(250)]
        body = b"POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n"
        slow += [await here.connect(body) for _ in range(250)]
        for _ in range(4):
            for client in slow:
                client.writer.write(b"X")
            assert await here.serves(20) < 2

    under(flood, 40 * MIB)


@pytest.mark.promise("gateway-floods")
def test_a_flood_of_bodies_that_the_service_does_not_take():
    """100 clients want to send 8 MiB each, 800 MiB in all."""

    async def send(here: Flooded) -> None:
        client = await here.connect(
            b"POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n" % (8 * MIB)
        )
        chunk = b"x" * 65536
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                for _ in range(128):
                    client.writer.write(chunk)
                    await client.writer.drain()

    async def flood(here: Flooded) -> None:
        await asyncio.gather(*[send(here) for _ in range(100)])

    under(flood, 100 * MIB)


@pytest.mark.promise("gateway-floods")
def test_a_flood_of_answers_that_nobody_takes():
    """200 clients ask for an answer of 1 MiB, kept by the gateway, and take nothing of it."""

    async def flood(here: Flooded) -> None:
        first = await here.connect(b"GET /kept HTTP/1.1\r\nHost: a\r\n\r\n")
        await first.answer()
        for _ in range(200):
            client = await here.connect(b"")
            client.writer.write(b"GET /kept HTTP/1.1\r\nHost: a\r\n\r\n" * 8)
        await asyncio.sleep(0.5)

    under(flood, 100 * MIB)


@pytest.mark.promise("gateway-floods")
def test_a_flood_of_connections_and_heads():
    """500 clients send long heads that never end; 200 send thousands of requests at once."""

    async def flood(here: Flooded) -> None:
        head = b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 39_000
        for _ in range(500):
            await here.connect(head)
        for _ in range(200):
            await here.connect(GET * 6000)
        await asyncio.sleep(0.5)

    under(flood, 120 * MIB)


@pytest.mark.promise("gateway-floods")
def test_a_flood_of_clients_with_limits():
    """6,000 clients with a limit each, which only a proxy that is trusted can invent."""

    async def flood(here: Flooded) -> None:
        client = await here.connect(b"")
        for number in range(6000):
            told = b"10.%d.%d.1" % divmod(number, 250)
            ask = b"GET /limited HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: " + told + b"\r\n\r\n"
            client.writer.write(ask)
            assert (await client.answer())[0] == 200

    under(flood, 30 * MIB)
