"""Services in the test's own loop, scripted over raw sockets: the test says every octet."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from contextlib import suppress
from typing import Self

OK = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello"


class Visit:
    """One connection to a service."""

    def __init__(
        self, service: Service, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        self.service = service
        self.reader = reader
        self.writer = writer
        self.gone = asyncio.Event()

    async def head(self) -> bytes:
        """The head of the next request; EOFError when the other side has closed."""
        head = await self.reader.readuntil(b"\r\n\r\n")
        self.service.heads.append(head)
        return head

    async def body(self, head: bytes) -> bytes:
        """The body that belongs to a head, read by its framing."""
        lower = head.lower()
        if b"\r\ntransfer-encoding: chunked" in lower:
            found = b""
            while size := int(await self.reader.readuntil(b"\r\n"), 16):
                found += await self.reader.readexactly(size)
                await self.reader.readexactly(2)
            await self.reader.readexactly(2)
            return found
        if b"\r\ncontent-length: " in lower:
            length = int(lower.partition(b"\r\ncontent-length: ")[2].partition(b"\r\n")[0])
            return await self.reader.readexactly(length)
        return b""

    async def request(self) -> tuple[bytes, bytes]:
        """The next request: head and body."""
        head = await self.head()
        body = await self.body(head)
        self.service.bodies.append(body)
        return head, body

    async def send(self, data: bytes) -> None:
        """Send octets."""
        self.writer.write(data)
        await self.writer.drain()

    async def ended(self) -> None:
        """Wait until the other side has closed."""
        with suppress(ConnectionError):
            while await self.reader.read(65536):
                pass


Script = Callable[[Visit], Awaitable[None]]


class Service:
    """A service whose connections follow a script; a connection is closed when its script ends."""

    def __init__(self, script: Script, *, tls: ssl.SSLContext | None = None) -> None:
        self.script = script
        self.tls = tls
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.visits = 0
        self.ended = 0
        self.changed = asyncio.Condition()
        self.tasks: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        self.server = await asyncio.start_server(self.visit, "127.0.0.1", 0, ssl=self.tls)
        self.port: int = self.server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self.server.close()
        for task in self.tasks:
            task.cancel()
        await asyncio.gather(*self.tasks, return_exceptions=True)

    def visit(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self.follow(Visit(self, reader, writer)))
        self.tasks.add(task)

    async def follow(self, visit: Visit) -> None:
        self.visits += 1
        try:
            with suppress(EOFError, ConnectionError, asyncio.CancelledError):
                await self.script(visit)
        finally:
            with suppress(ConnectionError, OSError):
                visit.writer.close()
                await visit.writer.wait_closed()
            async with self.changed:
                self.ended += 1
                self.changed.notify_all()

    async def closed(self, count: int = 1) -> None:
        """Wait until so many connections have come to their end."""
        async with asyncio.timeout(5), self.changed:
            await self.changed.wait_for(lambda: self.ended >= count)


def answering(*answers: bytes) -> Script:
    """A script: each request of a connection gets the next answer, the last one for ever."""

    async def script(visit: Visit) -> None:
        left = list(answers)
        while True:
            await visit.request()
            await visit.send(left.pop(0) if len(left) > 1 else left[0])

    return script


def once(answer: bytes) -> Script:
    """A script: one answer, then the connection is closed."""

    async def script(visit: Visit) -> None:
        await visit.request()
        await visit.send(answer)

    return script
