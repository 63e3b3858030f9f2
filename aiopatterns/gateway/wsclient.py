"""WebSockets to services, for both transports: aiohttp's client, with our errors and our bounds.

A service is asked for a WebSocket with the client's headers and subprotocols. aiohttp makes the
keys of the handshake, checks the answer, and masks the frames.

Guarantees: a message is read no faster than its reader takes it, and none above the bound is held;
a ping of the service is answered. A service that neither sends nor answers pings is closed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast, final

from anyio import move_on_after

from aiopatterns.core.errors import UpstreamError
from aiopatterns.gateway.aioclient import address, explained, words

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from aiohttp import ClientSession, ClientWebSocketResponse

    from aiopatterns.gateway.policy import Timeouts
    from aiopatterns.gateway.transport import Outgoing, UpstreamSocket

__all__ = ["MAX_MESSAGE", "dial"]

#: Bytes of one message, in either direction.
MAX_MESSAGE: Final = 4 * 1024 * 1024
# What the client of the handshake makes anew.
_HANDSHAKE: Final = frozenset(
    {
        b"sec-websocket-key",
        b"sec-websocket-version",
        b"sec-websocket-extensions",
        b"sec-websocket-protocol",
    }
)
_NO_STATUS: Final = 1005
_BROKEN: Final = 1006
# Seconds for a service to answer a close.
_PARTING: Final = 2.0
# A ping after this part of the idle time, and the answer to it within the rest: aiohttp waits half
# as long for the answer as it has waited for the ping.
_PING: Final = 2 / 3


@final
class _Socket:
    """A WebSocket of aiohttp, as an :class:`~aiopatterns.gateway.transport.UpstreamSocket`."""

    __slots__ = ("_endpoint", "_socket", "closed", "subprotocol")

    def __init__(self, socket: ClientWebSocketResponse, endpoint: str) -> None:
        self._socket = socket
        self._endpoint = endpoint
        self.subprotocol: str | None = socket.protocol
        self.closed: tuple[int, str] = (_NO_STATUS, "")

    async def send(self, message: str | bytes) -> None:
        """Send one message; waits while the service does not read."""
        try:
            if isinstance(message, str):
                await self._socket.send_str(message)
            else:
                await self._socket.send_bytes(message)
        except OSError as error:
            raise UpstreamError(
                f"{self._endpoint}: the WebSocket is closed",
                name=self._endpoint,
                kind="closed",
                sent=True,
            ) from error

    async def receive(self) -> str | bytes | None:
        """Return the next message; None when the service has closed, or has gone."""
        from aiohttp import WSMsgType

        message = await self._socket.receive()
        if message.type is WSMsgType.TEXT or message.type is WSMsgType.BINARY:
            data: str | bytes = message.data
            return data
        reason = message.extra if message.type is WSMsgType.CLOSE else ""
        self.closed = (self._socket.close_code or _BROKEN, reason or "")
        return None

    async def close(self, code: int = 1000, reason: str = "") -> None:
        """Close it; returns when the service has agreed, or does not."""
        await self._socket.close(code=code, message=reason.encode())


async def dial(
    session: ClientSession, outgoing: Outgoing, subprotocols: Sequence[str], timeouts: Timeouts
) -> UpstreamSocket:
    """Open a WebSocket to a service.

    Args:
        session: Where its connection comes from.
        outgoing: The client's handshake, clean.
        subprotocols: What the client offers.
        timeouts: Connecting and the answer to the handshake have their usual bounds; a service
            that is silent for ``idle``, also to a ping, is closed.

    Raises:
        UpstreamError: The service does not answer, or not by a WebSocket.

    Cancellation: nothing is left open.
    """
    from aiohttp import ClientWSTimeout

    # Its fields are made by attrs in a way that not every type checker sees.
    limits = cast("Callable[..., ClientWSTimeout]", ClientWSTimeout)
    endpoint = outgoing.endpoint
    with move_on_after(timeouts.connect + timeouts.first_byte):
        try:
            socket = await session.ws_connect(
                address(outgoing),
                headers=words(each for each in outgoing.headers if each[0] not in _HANDSHAKE),
                protocols=subprotocols,
                timeout=limits(ws_close=_PARTING),
                heartbeat=timeouts.idle * _PING,
                max_msg_size=MAX_MESSAGE,
            )
        except Exception as error:
            raise explained(error, endpoint) from error
        return _Socket(socket, endpoint)
    message = f"{endpoint}: no answer to the handshake within {timeouts.first_byte:g} s"
    raise UpstreamError(message, name=endpoint, kind="timeout", sent=True)
