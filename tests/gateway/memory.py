"""A transport without sockets, and clients that speak ASGI: the gateway alone, on any loop."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

from anyio import CancelScope, Event, create_task_group

from aiopatterns.core.errors import UpstreamError
from aiopatterns.gateway.policy import Timeouts
from aiopatterns.gateway.request import Headers
from aiopatterns.gateway.transport import (
    Incoming,
    Outgoing,
    Transport,
    TransportStatistics,
    UpstreamSocket,
)


class Answer:
    """What a service answers: whole, or in chunks, after which an error may be raised."""

    def __init__(
        self,
        status: int = 200,
        headers: Sequence[tuple[bytes, bytes]] = (),
        body: bytes | Iterable[bytes] | AsyncIterator[bytes] = b"",
        *,
        error: Exception | None = None,
    ) -> None:
        self.status = status
        self.headers: Headers = [*headers]
        self.body = body
        self.error = error
        self.closed = 0
        self.read = 0

    def whole(self) -> bytes | None:
        return self.body if isinstance(self.body, bytes) else None

    async def __aiter__(self) -> AsyncIterator[bytes]:
        if isinstance(self.body, AsyncIterator):
            async for chunk in self.body:
                self.read += 1
                yield chunk
        else:
            for chunk in [self.body] if isinstance(self.body, bytes) else self.body:
                self.read += 1
                yield chunk
        if self.error is not None:
            raise self.error

    async def aclose(self) -> None:
        self.closed += 1


Handler = Callable[[Outgoing], Awaitable[Incoming]]


class MemoryTransport(Transport):
    """Gives every request to a function; errors of that are those of the network."""

    def __init__(self, handler: Handler) -> None:
        super().__init__("memory")
        self.handler = handler
        self.sent: list[Outgoing] = []
        self.bodies: list[bytes] = []
        self.cancelled = 0

    async def send(self, outgoing: Outgoing, timeouts: Timeouts) -> Incoming:
        self._open_group()
        self.sent.append(outgoing)
        done = False
        try:
            incoming = await self.handler(outgoing)
            done = True
        except Exception:
            done = True
            raise
        finally:
            self.cancelled += not done
        return incoming

    async def websocket(
        self, outgoing: Outgoing, subprotocols: Sequence[str], timeouts: Timeouts
    ) -> UpstreamSocket:
        raise NotImplementedError

    def statistics(self) -> TransportStatistics:
        return TransportStatistics(requests=len(self.sent), failed=0)


def answering(*answers: Answer | Exception) -> Handler:
    """A service that reads the body and gives these answers, the last one for ever."""
    left = list(answers)

    async def handler(outgoing: Outgoing) -> Incoming:
        await body_of(outgoing)
        answer = left.pop(0) if len(left) > 1 else left[0]
        if isinstance(answer, Exception):
            raise answer
        return answer

    return handler


async def body_of(outgoing: Outgoing) -> bytes:
    """Read what is sent."""
    if outgoing.body is None or isinstance(outgoing.body, bytes):
        return outgoing.body or b""
    return b"".join([chunk async for chunk in outgoing.body])


def failing(kind: Any = "connect", *, sent: bool = False) -> UpstreamError:
    """An error of a transport."""
    return UpstreamError(name="there:80", kind=kind, sent=sent)


@dataclass
class Reply:
    """What a client got."""

    status: int = 0
    headers: dict[bytes, bytes] = field(default_factory=dict)
    pairs: list[tuple[bytes, bytes]] = field(default_factory=list)
    body: bytes = b""
    chunks: int = 0
    complete: bool = False


class Client:
    """One request of a client, as an ASGI server hands it on."""

    def __init__(
        self,
        method: str = "GET",
        path: str | bytes = "/",
        *,
        headers: Sequence[tuple[bytes, bytes]] = (),
        body: Sequence[bytes] = (),
        host: bytes = b"shop",
        peer: tuple[str, int] | None = ("9.9.9.9", 50_000),
        **scope: Any,
    ) -> None:
        raw = path if isinstance(path, bytes) else path.encode()
        raw, _, query = raw.partition(b"?")
        sent = (
            [*headers]
            if any(name == b"host" for name, _ in headers)
            else [(b"host", host), *headers]
        )
        if body and not any(name in {b"content-length", b"transfer-encoding"} for name, _ in sent):
            sent.append((b"transfer-encoding", b"chunked"))
        self.scope: dict[str, Any] = {
            "type": "http",
            "http_version": "1.1",
            "method": method,
            "scheme": "http",
            "path": raw.decode("latin-1"),
            "raw_path": raw,
            "query_string": query,
            "headers": sent,
            "client": peer,
            "server": ("127.0.0.1", 80),
            **scope,
        }
        self.left = list(body)
        self.asked = 0
        self.ended = False  # whether its whole body was handed on
        self.gone = Event()
        self.stalled = False  # whether it sends no more of its body for now
        self.more = Event()  # whether it goes on
        self.open_window = Event()
        self.open_window.set()
        self.reply = Reply()

    async def receive(self) -> dict[str, Any]:
        self.asked += 1
        if self.stalled and not self.left and not self.gone.is_set():
            async with create_task_group() as tasks:
                for each in (self.gone, self.more):
                    tasks.start_soon(self._first, each, tasks.cancel_scope)
        if self.gone.is_set() or self.ended:
            await self.gone.wait()
            return {"type": "http.disconnect"}
        chunk = self.left.pop(0) if self.left else b""
        self.ended = not self.left and not self.stalled
        return {"type": "http.request", "body": chunk, "more_body": not self.ended}

    async def _first(self, event: Event, others: CancelScope) -> None:
        await event.wait()
        others.cancel()

    async def send(self, message: Any) -> None:
        await self.open_window.wait()
        reply = self.reply
        if message["type"] == "http.response.start":
            assert not reply.status
            reply.status = message["status"]
            reply.pairs = list(message["headers"])
            reply.headers = dict(reply.pairs)
        else:
            assert reply.status
            assert not reply.complete
            reply.body += message.get("body", b"")
            reply.chunks += bool(message.get("body"))
            reply.complete = not message.get("more_body", False)

    async def ask(self, app: Any) -> Reply:
        await app(self.scope, self.receive, self.send)
        return self.reply


async def ask(app: Any, method: str = "GET", path: str | bytes = "/", **rest: Any) -> Reply:
    """Send one request and return what came of it."""
    return await Client(method, path, **rest).ask(app)
