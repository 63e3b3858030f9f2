"""One blocking connection that speaks just enough RESP to look after a server.

Starting a server means to ask it whether it is there, and a test wants to tell it a thing or two.
That must work without the client library, before an event loop runs, and not depend on anything
that is under test. Not for the library's own traffic: it has neither a pool nor retries.
"""

from __future__ import annotations

import socket
import ssl
from typing import TYPE_CHECKING, Final, TypeAlias, final
from urllib.parse import parse_qs, unquote, urlsplit

from aiopatterns.core.errors import BackendError, BackendUnavailableError

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

__all__ = ["Reply", "Wire"]

Reply: TypeAlias = "str | int | list[Reply] | None"
"""What a server answers: text, a number, nothing, or several of these."""

_TIMEOUT: Final = 5.0
_PORT: Final = 6379


@final
class Wire:
    """A connection to the server at ``url`` (``unix``, ``redis`` or ``rediss``).

    Args:
        url: Where the server is; user, password and database number are honoured.
        timeout: Seconds that one exchange may take.

    Raises:
        BackendUnavailableError: Nobody answers.
        BackendError: The server refuses the user or the database.

    Example::

        with Wire(server.url) as wire:
            assert wire.call("PING") == "PONG"
    """

    __slots__ = ("_socket", "_stream", "_where")

    def __init__(self, url: str, *, timeout: float = _TIMEOUT) -> None:
        parts = urlsplit(url)
        self._where = parts.path if parts.scheme == "unix" else f"{parts.hostname}:{parts.port}"
        try:
            self._socket = _dial(url, timeout)
        except OSError as error:
            raise self._unavailable(error) from error
        self._stream = self._socket.makefile("rb")
        try:
            self._greet(url)
        except BaseException:
            self.close()
            raise

    def call(self, *words: str | float | bytes) -> Reply:
        """Send one command and return its reply.

        Raises:
            BackendError: The server answered with an error.
            BackendUnavailableError: It did not answer.
        """
        parts = [each if isinstance(each, bytes) else str(each).encode() for each in words]
        sent = b"*%d\r\n" % len(parts)
        sent += b"".join(b"$%d\r\n%b\r\n" % (len(each), each) for each in parts)
        try:
            self._socket.sendall(sent)
            return self._read()
        except OSError as error:
            raise self._unavailable(error) from error

    def close(self) -> None:
        """Hang up."""
        self._stream.close()
        self._socket.close()

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Hang up."""
        self.close()

    def _greet(self, url: str) -> None:
        parts = urlsplit(url)
        if parts.password:
            user = (unquote(parts.username),) if parts.username else ()
            self.call("AUTH", *user, unquote(parts.password))
        if (number := _database(url)) != "0":
            self.call("SELECT", number)

    def _read(self) -> Reply:
        line = self._stream.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionResetError("the connection was closed")
        kind, rest = line[:1], line[1:-2]
        if kind == b"-":
            raise BackendError(rest.decode("utf-8", "replace"))
        if kind == b":":
            return int(rest)
        if kind == b"+":
            return rest.decode()
        if rest == b"-1":
            return None
        if kind == b"$":
            return self._stream.read(int(rest) + 2)[:-2].decode("utf-8", "surrogateescape")
        return [self._read() for _ in range(int(rest))]

    def _unavailable(self, error: OSError) -> BackendUnavailableError:
        return BackendUnavailableError(f"no Redis answers at {self._where}: {error}")


def _dial(url: str, timeout: float) -> socket.socket:
    parts = urlsplit(url)
    if parts.scheme == "unix":
        local = socket.socket(socket.AF_UNIX)
        local.settimeout(timeout)
        try:
            local.connect(unquote(parts.path))
        except BaseException:
            local.close()
            raise
        return local
    host = parts.hostname or "127.0.0.1"
    plain = socket.create_connection((host, parts.port or _PORT), timeout)
    if parts.scheme != "rediss":
        return plain
    return ssl.create_default_context().wrap_socket(plain, server_hostname=host)


def _database(url: str) -> str:
    parts = urlsplit(url)
    named = parse_qs(parts.query).get("db")
    if named:
        return named[0]
    return "0" if parts.scheme == "unix" else parts.path.strip("/") or "0"
