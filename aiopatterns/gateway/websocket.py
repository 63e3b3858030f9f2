"""WebSockets: one between a client and the gateway, one between that and a service, joined.

::

    connect ---> stages ---> upgrade at the service ---> accept ---> messages, both ways at once
                   |                |                                   |
                   '----------------'---> refused: 401 404 429 502 ...  '---> close, code and reason

A client is accepted only when the service has accepted, with the subprotocol that it has chosen. What
is refused gets the same answer as a plain request where the server can give one, else a plain 403.

Guarantees:

* Messages keep their kind, their order and their borders; each side is read no faster than the other
  takes, and one message of each is held at most.
* Who closes is answered, and the other side is closed with the same code and reason. A connection
  that breaks closes the other side: a client's as "going away" (1001), a service's as an internal
  error (1011).
* A message above the bound closes both sides as too big (1009).

Pings are answered where they arrive, by the server and by the gateway: each side is kept alive, and
found dead, by itself. The total timeout is for requests, not for these.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from anyio import create_task_group, move_on_after, sleep_forever

from aiopatterns.core.errors import UpstreamError
from aiopatterns.gateway.wsclient import MAX_MESSAGE

if TYPE_CHECKING:
    from anyio import CancelScope

    from aiopatterns.gateway.request import Headers, Message, Receive, Response, Send
    from aiopatterns.gateway.transport import UpstreamSocket

__all__ = ["Relay", "refuse", "sendable"]

# RFC 6455, 7.4.1, and the registry it opened: those that may be sent.
_NORMAL: Final = 1000
_GOING_AWAY: Final = 1001
_POLICY: Final = 1008
_TOO_BIG: Final = 1009
_INTERNAL: Final = 1011
_OF_PROTOCOL: Final = frozenset({*range(1000, 1004), *range(1007, 1015)})
_OF_OTHERS: Final = range(3000, 5000)
# Stands for a close without a code.
_NO_STATUS: Final = 1005
# Seconds for a service to answer a close.
_PARTING: Final = 2.0
_DENIAL: Final = "websocket.http.response"


@final
class Relay:
    """Joins a client that waits to be accepted and a service that has accepted.

    Args:
        receive: Messages of the client; that it wants to connect was taken already.
        send: Takes messages for it.
        upstream: The service's side.
    """

    __slots__ = ("_parting", "_receive", "_send", "_upstream")

    def __init__(self, receive: Receive, send: Send, upstream: UpstreamSocket) -> None:
        self._receive = receive
        self._send = send
        self._upstream = upstream
        self._parting = (_GOING_AWAY, "")

    async def run(self, headers: Headers) -> None:
        """Accept the client, and pass messages until one side has closed.

        Args:
            headers: Of the answer to the client's handshake.

        Cancellation: the service's side is closed; the server closes the client's.
        """
        accept = {"type": "websocket.accept", "subprotocol": self._upstream.subprotocol}
        try:
            if not await self._tell(accept | {"headers": headers}):
                return
            async with create_task_group() as both:
                both.start_soon(self._down, both.cancel_scope)
                await self._up()
                both.cancel_scope.cancel()
        finally:
            with move_on_after(_PARTING, shield=True):
                await self._upstream.close(*self._parting)

    async def _up(self) -> None:
        """Pass what the client sends, until it closes."""
        while True:
            message = await self._receive()
            if message["type"] == "websocket.disconnect":
                code = message.get("code", _NO_STATUS)
                self._parting = sendable(code, _GOING_AWAY), message.get("reason") or ""
                return
            text = message.get("text")
            data: str | bytes = message["bytes"] if text is None else text
            if len(data) > MAX_MESSAGE:
                self._parting = (_TOO_BIG, "the message is too big")
                await self._tell(_closing(*self._parting))
                return
            try:
                await self._upstream.send(data)
            except UpstreamError:
                await sleep_forever()  # until the other direction has read how it was closed

    async def _down(self, both: CancelScope) -> None:
        """Pass what the service sends, until it closes or the client has gone."""
        upstream = self._upstream
        while (data := await upstream.receive()) is not None:
            kind = "text" if isinstance(data, str) else "bytes"
            if not await self._tell({"type": "websocket.send", kind: data}):
                break
        else:
            code, reason = upstream.closed
            await self._tell(_closing(sendable(code, _INTERNAL), reason))
        both.cancel()

    async def _tell(self, message: Message) -> bool:
        """Send a message to the client; False if it has gone."""
        try:
            await self._send(message)
        except (OSError, RuntimeError):  # the words of servers for it
            return False
        return True


async def refuse(scope: Message, send: Send, response: Response, headers: Headers) -> None:
    """Answer a client that wants to connect by a plain response, as far as the server can.

    Args:
        scope: Of the connection.
        send: Takes messages for the client.
        response: What it is told; its body is whole.
        headers: The response's headers, as the client is to get them.
    """
    if _DENIAL not in (scope.get("extensions") or ()):
        await send(_closing(_POLICY, ""))  # before it was accepted: a 403
        return
    start = {"type": f"{_DENIAL}.start", "status": response.status, "headers": headers}
    await send(start)
    await send({"type": f"{_DENIAL}.body", "body": response.body})


def sendable(code: int, broken: int) -> int:
    """Return the code to send for one that was received.

    Args:
        code: As received, or one that stands for none.
        broken: What stands for a connection that broke.
    """
    if code == _NO_STATUS:
        return _NORMAL
    if code in _OF_PROTOCOL or code in _OF_OTHERS:
        return code
    return broken


def _closing(code: int, reason: str) -> dict[str, object]:
    return {"type": "websocket.close", "code": code, "reason": reason}
