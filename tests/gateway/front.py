"""A gateway behind a real uvicorn in the test's own loop, and clients that say every octet."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import uvicorn

from aiopatterns.gateway.door import door
from aiopatterns.gateway.policy import Limits

TRANSPORTS = ("aiohttp", "fast")


class Client:
    """A raw connection."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, data: bytes) -> None:
        with suppress(ConnectionError):
            self.writer.write(data)
            await self.writer.drain()

    async def answer(self) -> tuple[int, bytes, bytes]:
        """The next answer: status, head in lower case, body."""
        head = (await self.reader.readuntil(b"\r\n\r\n")).lower()
        body = b""
        if b"\r\ntransfer-encoding: chunked" in head:
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                body += await self.reader.readexactly(size)
                await self.reader.readexactly(2)
            await self.reader.readexactly(2)
        elif b"\r\ncontent-length: " in head:
            length = head.partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0]
            body = await self.reader.readexactly(int(length))
        return int(head[9:12]), head, body

    async def rest(self) -> bytes:
        """All that comes until the other side closes; it has to, within 5 s."""
        found = b""
        try:
            async with asyncio.timeout(5):
                while data := await self.reader.read(65536):
                    found += data
        except ConnectionError:
            pass
        except TimeoutError:
            msg = f"still open after {found!r}"
            raise AssertionError(msg) from None
        return found

    def close(self) -> None:
        self.writer.close()


class Front:
    """Where a server listens."""

    def __init__(self, server: uvicorn.Server, port: int) -> None:
        self.server = server
        self.port = port
        self.clients: list[Client] = []

    async def connect(self, data: bytes = b"") -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port))
        self.clients.append(client)
        if data:
            await client.send(data)
        return client

    async def ask(self, data: bytes) -> bytes:
        """All that is answered to some octets, until the server closes."""
        client = await self.connect(data)
        found = await client.rest()
        client.close()
        return found


@asynccontextmanager
async def served(
    app: Any, *, patience: float = 10.0, limits: Limits | None = None, **options: Any
) -> AsyncIterator[Front]:
    """Run an application under uvicorn, with the door of the gateway."""
    config = uvicorn.Config(
        app,
        http=door(limits or Limits(), patience=patience),
        port=0,
        proxy_headers=False,
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=1,
        **options,
    )
    server = uvicorn.Server(config)
    config.load()
    server.lifespan = config.lifespan_class(config)
    await server.startup()
    front = Front(server, server.servers[0].sockets[0].getsockname()[1])
    try:
        yield front
    finally:
        for client in front.clients:
            client.close()
            with suppress(ConnectionError):
                await client.writer.wait_closed()
        server.should_exit = True
        await server.shutdown()


def statuses(octets: bytes) -> list[int]:
    """The statuses of all answers in some octets."""
    return [int(each[:3]) for each in octets.split(b"HTTP/1.1 ")[1:]]
