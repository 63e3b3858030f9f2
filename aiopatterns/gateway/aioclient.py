"""aiohttp's client as a gateway needs it: one that adds nothing, follows nothing and keeps nothing.

What a client for people does by itself, a proxy must not do: cookies, redirects, decompression,
headers of its own. This file turns that off, turns octets into what the client turns into the same
octets again, and the client's errors into ours.
"""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Final

from anyio import CancelScope, sleep_forever

from aiopatterns.core.errors import UpstreamError

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterable
    from typing import Literal

    from aiohttp import ClientSession
    from anyio.abc import TaskStatus
    from multidict import CIMultiDict
    from yarl import URL

    from aiopatterns.gateway.transport import Outgoing

__all__ = ["address", "explained", "hold", "open_session", "require", "words"]

# What the client would add by itself.
_OWN_HEADERS: Final = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")
# Bytes of one header, and of a body that is held for its reader.
_HEADER: Final = 32 * 1024
_HELD: Final = 64 * 1024


def require(*modules: str) -> None:
    """Check that the modules of the extra ``gateway`` are there.

    Raises:
        ImportError: They are not; the message has the command.
    """
    if not all(find_spec(each) for each in modules):
        names = " and ".join(modules)
        msg = f"the gateway needs {names}: pip install 'aiopatterns[gateway]'"
        raise ImportError(msg, name=modules[0])


def open_session(connections: int, keep_alive: float, tls: ssl.SSLContext | None) -> ClientSession:
    """Return a session; needs a running loop.

    Args:
        connections: Connections to one endpoint at most.
        keep_alive: Seconds that an idle connection is kept.
        tls: How certificates are verified; None for the system's authorities.
    """
    from aiohttp import ClientSession, DummyCookieJar, TCPConnector

    from aiopatterns.gateway.aioresponse import StrictResponse

    connector = TCPConnector(
        limit=0,
        limit_per_host=connections,
        keepalive_timeout=keep_alive,
        ssl=True if tls is None else tls,
    )
    return ClientSession(
        connector=connector,
        cookie_jar=DummyCookieJar(),
        response_class=StrictResponse,
        auto_decompress=False,
        skip_auto_headers=_OWN_HEADERS,
        max_line_size=_HEADER,
        max_field_size=_HEADER,
        read_bufsize=_HELD,
    )


async def hold(session: ClientSession, *, task_status: TaskStatus[None]) -> None:
    """Close a session when the task group of its owner ends, for that takes an await."""
    try:
        task_status.started()
        await sleep_forever()
    finally:
        with CancelScope(shield=True):
            await session.close()


def address(outgoing: Outgoing) -> URL:
    """Return where a request goes; its target is not touched."""
    from yarl import URL

    scheme = "https" if outgoing.tls else "http"
    return URL(f"{scheme}://{outgoing.endpoint}{_text(outgoing.target)}", encoded=True)


def words(headers: Iterable[tuple[bytes, bytes]]) -> CIMultiDict[str]:
    """Return headers as the client takes them, in their order, repeated ones included."""
    from multidict import CIMultiDict

    return CIMultiDict([(_text(name), _text(value)) for name, value in headers])


def explained(error: Exception, endpoint: str) -> UpstreamError:
    """Return what an error of the client means."""
    from aiohttp import ClientConnectorError, ClientResponseError, ConnectionTimeoutError

    kind: Literal["connect", "timeout", "invalid", "closed"] = "closed"
    unsent = isinstance(error, (ClientConnectorError, ConnectionTimeoutError))
    if isinstance(error, ConnectionTimeoutError):
        kind = "timeout"
    elif unsent:
        kind = "connect"
    elif isinstance(error, ClientResponseError):
        kind = "invalid"
    message = f"{endpoint}: {str(error) or type(error).__name__}"
    return UpstreamError(message, name=endpoint, kind=kind, sent=not unsent)


def _text(octets: bytes) -> str:
    """Return octets as the text that the client will turn into these octets again."""
    try:
        return octets.decode()
    except UnicodeDecodeError:
        return octets.decode("latin-1")
