"""Load for proxies, as a process of its own: so many connections, each with one request at a time.

Straight on uvloop and httptools, so that two cores are enough for it, the proxy and the service.
Every answer is checked: its status, and the length of its body.

``python -m benchmarks.gateway.load PORT PATH CONNECTIONS SECONDS LENGTH [HEADER=VALUE ...]`` prints
one line of JSON: requests, seconds, and the milliseconds of p50 and p99.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from typing import cast

import httptools
import uvloop

PATIENCE = 20.0


class Client(asyncio.Protocol):
    """One connection: asks, and asks again when the answer has come."""

    def __init__(self, request: bytes, length: int, until: float, times: list[float]) -> None:
        self.request = request
        self.length = length
        self.until = until
        self.times = times
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.parser = httptools.HttpResponseParser(self)

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast("asyncio.Transport", transport)  # uvloop's is one, not a subclass
        self.ask()

    def ask(self) -> None:
        self.got = 0
        self.started = time.perf_counter()
        self.transport.write(self.request)

    def data_received(self, data: bytes) -> None:
        self.parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self.got += len(body)

    def on_message_complete(self) -> None:
        now = time.perf_counter()
        status = self.parser.get_status_code()
        if (status, self.got) != (200, self.length):
            self.fail(f"{status} with {self.got} bytes")
            return
        self.times.append(now - self.started)
        if now < self.until:
            self.ask()
        elif not self.ended.done():
            self.ended.set_result(None)
            self.transport.close()

    def connection_lost(self, exc: Exception | None) -> None:
        self.fail(f"the connection was closed: {exc}")

    def fail(self, why: str) -> None:
        if not self.ended.done():
            self.ended.set_exception(RuntimeError(why))


async def load(port: int, path: str, connections: int, seconds: float, *rest: str) -> None:
    length, *headers = rest
    lines = [f"GET {path} HTTP/1.1", f"Host: 127.0.0.1:{port}", "User-Agent: load", "Accept: */*"]
    lines += [each.replace("=", ": ", 1) for each in headers]
    request = ("\r\n".join(lines) + "\r\n\r\n").encode()
    times: list[float] = []
    started = time.perf_counter()

    def client() -> Client:
        return Client(request, int(length), started + seconds, times)

    loop = asyncio.get_running_loop()
    made = [await loop.create_connection(client, "127.0.0.1", port) for _ in range(connections)]
    async with asyncio.timeout(seconds + PATIENCE):
        await asyncio.gather(*(each.ended for _, each in made))
    took = time.perf_counter() - started
    times.sort()
    at = {f"p{part}": times[len(times) * part // 100] * 1e3 for part in (50, 99)}
    print(json.dumps({"requests": len(times), "seconds": took} | at))


if __name__ == "__main__":
    port, path, connections, seconds, *rest = sys.argv[1:]
    uvloop.run(load(int(port), path, int(connections), float(seconds), *rest))
