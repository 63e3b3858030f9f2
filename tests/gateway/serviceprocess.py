"""A service in a process of its own: ``python serviceprocess.py PORT`` (0 for any); prints its port."""

from __future__ import annotations

import asyncio
import sys


class Answering(asyncio.Protocol):
    """Answers every head with its process's port, a little later."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.data = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data
        while b"\r\n\r\n" in self.data:
            head, _, self.data = self.data.partition(b"\r\n\r\n")
            asyncio.get_running_loop().call_later(0.002, self.answer, head)

    def answer(self, head: bytes) -> None:
        body = str(self.port).encode()
        start = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body)
        self.transport.write(start if head.startswith(b"HEAD ") else start + body)


async def main(port: int) -> None:
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: Answering(bound), "127.0.0.1", port)
    bound: int = server.sockets[0].getsockname()[1]
    print(bound, flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1])))
