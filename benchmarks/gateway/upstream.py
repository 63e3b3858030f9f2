"""The service behind the proxies: a raw protocol that answers every GET with 1 KB.

``python -m benchmarks.gateway.upstream`` prints its port.
"""

from __future__ import annotations

import asyncio
from email.utils import formatdate
from typing import cast

import uvloop

LENGTH = 1024
HEAD = (
    b"HTTP/1.1 200 OK\r\n"
    b"date: %b\r\n"
    b"server: upstream\r\n"
    b"content-type: application/json\r\n"
    b"cache-control: public, max-age=3600\r\n"
    b"content-length: %d\r\n\r\n" % (formatdate(usegmt=True).encode(), LENGTH)
)
ANSWER = HEAD + b"x" * LENGTH


class Server(asyncio.Protocol):
    """One connection; the requests of a proxy's benchmark have no body."""

    held = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is one, not a subclass

    def data_received(self, data: bytes) -> None:
        *requests, self.held = (self.held + data).split(b"\r\n\r\n")
        if requests:
            self.transport.write(ANSWER * len(requests))


async def main() -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(Server, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(main())
