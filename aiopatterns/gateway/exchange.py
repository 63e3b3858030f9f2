"""One exchange with a client: a request, and the ways in which it may end before its answer has gone.

::

    request ---> work [ intake, stages, service, answer ] ---> last byte
                   ^
                   |  cancelled once, for a reason
                   '---- gone      the client has closed the connection          499
                         total     the total timeout is over                     504
                         stalled   the client neither sends nor takes a byte     408

An ASGI server tells that a client has gone only to who asks, and asking waits. A task that asks for
each request would cost as much as all else here, so it is started for a request that is still under
way after 50 ms, and its body read; the total timeout is armed at the same moment. Quick requests cost
two operations on a dict.

Guarantees: the work is cancelled for one reason, the first. After the first byte of an answer there
is no other answer: what breaks then closes the connection, by leaving without the last message.

Cancellation: passes, and is no reason of ours.
"""

from __future__ import annotations

import math
from contextlib import suppress
from typing import TYPE_CHECKING, Final, Literal, TypeAlias, final

from anyio import CancelScope

from aiopatterns.core.clock import Alarms, Interrupt, monotonic

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from anyio.abc import TaskGroup

    from aiopatterns.gateway.plan import Plan
    from aiopatterns.gateway.policy import Timeouts
    from aiopatterns.gateway.request import Message, Receive, Request, Response, Send

__all__ = ["Bells", "Exchange", "Reason"]

Reason: TypeAlias = Literal["gone", "total", "stalled"]

#: Seconds after which a request is watched.
SOON = 0.05
# Bytes that are handed to the server at once, which keeps them for a client that takes nothing.
_PIECE: Final = 64 * 1024


@final
class Bells:
    """The timers that the requests under one set of timeouts share; belongs to one loop.

    Args:
        timeouts: How long.
        tasks: Where those run that watch clients.
    """

    __slots__ = ("idle", "seconds", "soon", "tasks", "total")

    def __init__(self, timeouts: Timeouts, tasks: TaskGroup) -> None:
        self.seconds: float = math.inf if timeouts.total is None else timeouts.total
        total = timeouts.total
        first = SOON if total is None else min(SOON, total)
        self.tasks: TaskGroup = tasks
        self.soon: Alarms = Alarms(first)
        self.total: Alarms | None = None if total is None else Alarms(total - first)
        self.idle: Alarms = Alarms(timeouts.idle)


@final
class Exchange:
    """What is known of a client while its request is served, in the task that makes it.

    Called, it becomes that of a slow request: see the module's text.

    Args:
        receive: Gives messages of the server.
        send: Takes those of the answer.

    Attributes:
        began: When it began, in monotonic seconds.
        request: The request, once it is known to be one.
        plan: What it goes through, once that is known.
        interrupt: What ends the work for a reason.
        reason: Why it was ended; None if it was not.
        status: Status of the answer that was begun; 0 for none.
        done: Whether all of it was handed to the server.
    """

    __slots__ = (
        "_bells",
        "_read",
        "_receive",
        "_send",
        "_slow",
        "_watcher",
        "began",
        "done",
        "interrupt",
        "plan",
        "reason",
        "request",
        "status",
    )

    def __init__(self, receive: Receive, send: Send) -> None:
        self._receive = receive
        self._send = send
        self._bells: Bells | None = None
        self._watcher: CancelScope | None = None
        self._read = self._slow = False
        self.interrupt: Interrupt = Interrupt()
        self.began: float = monotonic()
        self.request: Request | None = None
        self.plan: Plan | None = None
        self.reason: Reason | None = None
        self.status: int = 0
        self.done: bool = False

    def __call__(self) -> None:
        """Note that it has become that of a slow request."""
        self._slow = True
        assert self._bells is not None, "it rings by them"
        if self._bells.total is not None:
            self._bells.total.arm(self._expire)
        if self._read:
            self._start_watching()

    @property
    def ends(self) -> float:
        """When the total timeout is over, in monotonic seconds; infinity for never."""
        bells = self._bells
        return math.inf if bells is None else self.began + bells.seconds

    def limit(self, bells: Bells) -> None:
        """Bound it in time from now on."""
        self._bells = bells
        bells.soon.arm(self)

    def watch(self) -> None:
        """Look out for the client's going; called once all of its body was read, or there is none."""
        self._read = True
        if self._slow:
            self._start_watching()

    async def receive(self) -> Message:
        """Return the next message about the request's body.

        Cancellation: by the idle timeout too, for the reason ``"stalled"``.
        """
        bells, stall = self._bells, self._stall
        assert bells is not None, "a body is read by a stage, which is bounded in time"
        bells.idle.arm(stall)
        try:
            return await self._receive()
        finally:
            bells.idle.disarm(stall)

    async def reply(self, response: Response, headers: list[tuple[bytes, bytes]]) -> None:
        """Hand an answer to the server.

        Args:
            response: The answer; a streamed body is closed in any case.
            headers: Its headers, as the client is to get them.
        """
        body, send = response.body, self._send
        self.status = response.status
        start = {"type": "http.response.start", "status": response.status, "headers": headers}
        if isinstance(body, bytes) and self.request is not None and self.request.method == "HEAD":
            body = b""
        if isinstance(body, bytes) and len(body) <= _PIECE:
            await send(start)
            await send({"type": "http.response.body", "body": body})
            self.done = True
            return
        pieces = _pieces(body) if isinstance(body, bytes) else body
        try:
            await self._push(start)
            async for chunk in pieces:
                await self._push({"type": "http.response.body", "body": chunk, "more_body": True})
            await self._push({"type": "http.response.body", "body": b""})
            self.done = True
        finally:
            await pieces.aclose()

    def close(self) -> None:
        """Disarm everything, and look out no longer."""
        bells = self._bells
        if bells is None:
            return
        bells.soon.disarm(self)
        if self._slow and bells.total is not None:
            bells.total.disarm(self._expire)
        if self._watcher is not None:
            self._watcher.cancel()

    async def _push(self, message: Message) -> None:
        """Hand one message to the server, which takes it when the client has taken others."""
        bells, stall = self._bells, self._stall
        assert bells is not None, "an answer is streamed by a stage, which is bounded in time"
        bells.idle.arm(stall)
        try:
            await self._send(message)
        finally:
            bells.idle.disarm(stall)

    def _start_watching(self) -> None:
        assert self._bells is not None, "it is a slow one by its bells"
        self._watcher = CancelScope()
        with suppress(RuntimeError):  # the gateway was left by an error: nobody looks out any more
            self._bells.tasks.start_soon(self._look_out, self._watcher)

    async def _look_out(self, scope: CancelScope) -> None:
        """Ask the server until it says that the client has gone."""
        with scope:
            with suppress(Exception):  # a server that cannot tell any more has lost the client
                while (await self._receive())["type"] == "http.request":
                    pass
            self._end("gone")

    def _expire(self) -> None:
        self._end("total")

    def _stall(self) -> None:
        self._end("stalled")

    def _end(self, reason: Reason) -> None:
        if self.reason is None and not self.done:
            self.reason = reason
            self.interrupt.fire()


async def _pieces(body: bytes) -> AsyncGenerator[bytes, None]:
    """Give out a body in pieces, each when the client has taken those before."""
    for at in range(0, len(body), _PIECE):
        yield body[at : at + _PIECE]
