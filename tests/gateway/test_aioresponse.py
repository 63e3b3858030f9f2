from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import cast

import anyio
import pytest
from aiohttp import ClientPayloadError, ClientSession, ServerDisconnectedError

from aiopatterns.gateway.aioclient import open_session
from aiopatterns.gateway.aioresponse import StrictResponse
from tests.gateway.services import OK, Service, Visit, answering, once

pytestmark = pytest.mark.real

HEAD = b"HTTP/1.1 200 OK\r\n"
PART = HEAD + b"content-length: 9\r\n\r\nhello"


@asynccontextmanager
async def opened() -> AsyncGenerator[ClientSession]:
    async with open_session(4, 30.0, None) as session:
        yield session


async def asked(session: ClientSession, service: Service, method: str = "GET") -> StrictResponse:
    response = await session.request(method, f"http://127.0.0.1:{service.port}/")
    return cast("StrictResponse", response)


async def silent(visit: Visit) -> None:
    await visit.request()
    await visit.send(PART)
    await visit.ended()


@pytest.mark.parametrize(
    ("answer", "regular"),
    [
        (OK, True),
        (HEAD + b"transfer-encoding: Chunked\r\n\r\n0\r\n\r\n", True),
        (HEAD + b"x-text: a \tb \xe9\r\ncontent-length: 0\r\n\r\n", True),
        (HEAD + b"transfer-encoding: gzip, chunked\r\n\r\n0\r\n\r\n", False),
        (
            HEAD + b"transfer-encoding: gzip\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
            False,
        ),
    ],
)
async def test_a_head_is_regular_or_not(answer: bytes, regular: bool):
    async with Service(once(answer)) as service, opened() as session:
        response = await asked(session, service)
        assert response.regular == regular
        response.destroy()


async def test_a_connection_that_spoke_unasked_gives_no_answer():
    async def script(visit: Visit) -> None:
        await visit.request()
        await visit.send(OK)
        await visit.send(OK)
        await visit.ended()

    async with Service(script) as service, opened() as session:
        assert await (await asked(session, service, "POST")).read() == b"hello"
        await anyio.sleep(0.02)
        # Either it was noticed before it was used again, or the method lets nobody repeat it.
        try:
            assert await (await asked(session, service, "POST")).read() == b"hello"
        except ServerDisconnectedError:
            assert service.visits == 1
        else:
            assert service.visits == 2


async def test_a_reader_learns_of_a_lost_connection():
    async def script(visit: Visit) -> None:
        await visit.request()
        await visit.send(PART)

    async with Service(script) as service, opened() as session:
        response = await asked(session, service)
        response.watch()
        with pytest.raises(ClientPayloadError):
            await response.read()


async def test_destroyed_its_connection_is_closed_also_after_it_was_given_back():
    async with Service(answering(OK)) as service, opened() as session:
        response = await asked(session, service)
        assert await response.read() == b"hello"
        response.destroy()
        await service.closed()
        assert await (await asked(session, service)).read() == b"hello"
        assert service.visits == 2


async def test_one_that_never_began_has_no_connection():
    async with Service(silent) as service, opened() as session:
        response = await asked(session, service)
        response.wire = None
        response.watch()
        response.destroy()
        await service.closed()
