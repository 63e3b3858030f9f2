"""A server by hand: for replies that a real one gives only when it is ill."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from pathlib import Path
from typing import Any

import hiredis

from aiopatterns.backends import opening
from aiopatterns.backends.redis.backend import RedisBackend

OK = b"+OK\r\n"


def open_backend(url: str, **options: Any) -> RedisBackend:
    """As the library's, but typed for tests that look behind the protocols."""
    backend = opening.open_backend(url, **options)
    assert isinstance(backend, RedisBackend)
    return backend


class FakeServer:
    """Listens on a Unix socket; ``answer(words)`` gives the bytes to send, None hangs up, "" waits.

    The greeting is answered by itself. ``seen`` has the commands of all connections.
    """

    def __init__(self, answer=lambda words: OK, *, greet=True, host=None):
        self.answer = answer
        self.greet = greet
        self.host = host
        self.seen = []
        self.writers = set()
        self.subscribers = set()
        self.connections = 0
        self._tasks = set()

    async def __aenter__(self):
        if self.host:
            self._server = await asyncio.start_server(self._serve, self.host, 0)
            self.port = self._server.sockets[0].getsockname()[1]
            self.url = f"redis://{self.host}:{self.port}"
            return self
        self._home = Path(tempfile.mkdtemp(prefix="apf-", dir="/tmp"))
        self.path = self._home / "s"
        self._server = await asyncio.start_unix_server(self._serve, str(self.path))
        self.url = f"unix://{self.path}"
        return self

    async def __aexit__(self, *_):
        for _turn in range(5):  # who is about to be accepted is, and can be hung up
            await asyncio.sleep(0)
        self._server.close()
        self.hang_up()
        if self._tasks:
            await asyncio.wait(set(self._tasks))
        await self._server.wait_closed()
        if not self.host:
            shutil.rmtree(self._home)

    def hang_up(self):
        for writer in self.writers:
            writer.transport.abort()

    def push(self, data):
        for writer in self.writers:
            writer.write(data)

    async def _serve(self, reader, writer):
        task = asyncio.current_task()
        self._tasks.add(task)
        self.writers.add(writer)
        self.connections += 1
        parser = hiredis.Reader(notEnoughData=None)
        try:
            while data := await reader.read(65536):
                parser.feed(data)
                while (words := parser.gets()) is not None:
                    self.seen.append(words)
                    if words[0] == b"SUBSCRIBE":
                        self.subscribers.add(writer)
                    greeting = words[0] in {b"CLIENT", b"AUTH", b"SELECT"}
                    reply = OK if greeting and self.greet else self.answer(words)
                    if reply is None:
                        return
                    writer.write(reply or b"")
        except (OSError, hiredis.ProtocolError):
            pass
        finally:
            self.writers.discard(writer)
            writer.transport.abort()
            self._tasks.discard(task)


INFO = b"redis_version:7.0.15\r\n"


def info(version="7.0.15"):
    body = f"# Server\r\nredis_version:{version}\r\n".encode()
    return b"$%d\r\n%b\r\n" % (len(body), body)


def server_of(replies):
    """An answer function: INFO is answered, then ``replies`` in turn, the last for ever."""

    def answer(words):
        if words[0] == b"INFO":
            return info()
        return replies.pop(0) if len(replies) > 1 else replies[0]

    return answer
