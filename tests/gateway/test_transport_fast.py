"""What the fast transport alone promises; what all transports do stands in test_transport.py."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from typing import Any

import anyio
import pytest

from aiopatterns.core.errors import UpstreamError
from aiopatterns.gateway.policy import Timeouts
from aiopatterns.gateway.transport import Outgoing
from aiopatterns.gateway.transport_fast import FastTransport
from tests.gateway.services import OK, Service, Visit, answering, once

pytestmark = pytest.mark.real


def outgoing(service: Service, **changes: Any) -> Outgoing:
    fields: dict[str, Any] = {"method": b"GET", "host": "127.0.0.1", "port": service.port}
    fields |= {"tls": False, "target": b"/", "headers": [(b"host", b"shop.test")]}
    return Outgoing(**fields | changes)


async def got(transport: FastTransport, request: Outgoing, timeouts: Timeouts) -> bytes:
    incoming = await transport.send(request, timeouts)
    whole = incoming.whole()
    return b"".join([chunk async for chunk in incoming]) if whole is None else whole


async def test_octets_arrive_as_they_were_given():
    answer = b"HTTP/1.1 200 OK\r\nx-raw: \xff\xe9\r\ncontent-length: 0\r\n\r\n"
    async with Service(answering(answer)) as service, FastTransport() as transport:
        headers = [(b"host", b"shop.test"), (b"x-raw", b"\xff\xe9")]
        incoming = await transport.send(outgoing(service, headers=headers), Timeouts())
        assert b"x-raw: \xff\xe9\r\n" in service.heads[0]
        assert (b"x-raw", b"\xff\xe9") in incoming.headers
        assert incoming.whole() == b""


async def test_a_service_that_closes_as_a_request_comes_costs_an_idempotent_one_nothing():
    async def script(visit: Visit) -> None:
        await visit.request()
        await visit.send(OK)
        await visit.head()  # a request that finds the connection closed

    async with Service(script) as service, FastTransport() as transport:
        assert await got(transport, outgoing(service), Timeouts()) == b"hello"
        assert await got(transport, outgoing(service), Timeouts()) == b"hello"
        assert (service.visits, len(service.heads)) == (2, 3)
        assert transport.statistics().failed == 0
        assert transport.statistics().connections == 1


async def test_one_that_has_begun_to_answer_is_not_asked_again():
    async def script(visit: Visit) -> None:
        await visit.request()
        await visit.send(OK)
        await visit.head()
        await visit.send(b"HTTP/1.1 2")

    async with Service(script) as service, FastTransport() as transport:
        assert await got(transport, outgoing(service), Timeouts()) == b"hello"
        with pytest.raises(UpstreamError) as caught:
            await got(transport, outgoing(service), Timeouts())
        assert (caught.value.kind, caught.value.sent) == ("closed", True)
        assert service.visits == 1


async def test_any_number_of_budgets_takes_a_bounded_number_of_alarms():
    async with Service(answering(OK)) as service, FastTransport() as transport:
        for number in range(300):
            timeouts = Timeouts(idle=10 + number / 100)
            assert await got(transport, outgoing(service), timeouts) == b"hello"
        assert service.visits == 1


async def test_a_wait_in_line_that_is_cancelled_takes_no_connection():
    asked = asyncio.Event()

    async def script(visit: Visit) -> None:
        await visit.request()
        asked.set()
        await visit.ended()

    async with Service(script) as service, FastTransport(max_connections=1) as transport:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(got, transport, outgoing(service), Timeouts())
            await asked.wait()
            with anyio.move_on_after(0.02) as waiting:
                await got(transport, outgoing(service), Timeouts())
            assert waiting.cancelled_caught
            assert transport.statistics().connections == 1
            tasks.cancel_scope.cancel()
        assert transport.statistics().connections == 0


async def test_endpoints_without_connections_are_forgotten():
    async with Service(once(OK)) as service, FastTransport(keep_alive=0.02) as transport:
        assert await got(transport, outgoing(service), Timeouts()) == b"hello"
        await service.closed()
        await anyio.sleep(0.1)
        figures = transport.statistics()
        assert (figures.connections, figures.idle, figures.requests) == (0, 0, 1)
        assert await got(transport, outgoing(service), Timeouts()) == b"hello"


def test_the_room_imports_without_the_extra():
    code = (
        "import sys; import aiopatterns.gateway as gateway; gateway.FastTransport; "
        "print(sorted({'httptools', 'aiohttp', 'joserfc', 'uvicorn'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
