"""An answer of aiohttp's client that takes nothing for an answer that nobody has asked for.

The client reads whatever arrives on a kept connection; what a service sends unasked would become
the answer to the next request, whoever made that. Here such a connection counts as closed: the
client sends the request again on another one, if its method allows that.

It also knows its connection for as long as it lives, so that it can be closed for good when the
answer is refused: the client gives a connection back as soon as the last octet has come.

aiohttp is imported with this file, so this file is imported late.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from aiohttp import ClientPayloadError, ClientResponse, ServerDisconnectedError

if TYPE_CHECKING:
    from typing import Self

    from aiohttp.client_proto import ResponseHandler
    from aiohttp.connector import Connection

__all__ = ["StrictResponse"]

_OK: Final = 200
_CODING: Final = b"transfer-encoding"
# The client reads heads leniently; by these octets one header could become two, or none.
_NAME: Final = re.compile(rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch
_CONTROL: Final = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]").search


class StrictResponse(ClientResponse):
    """An answer whose connection is known."""

    wire: ResponseHandler | None = None

    async def start(self, connection: Connection) -> Self:
        """Read the head; called by the client when the request was written.

        Raises:
            ServerDisconnectedError: The connection had something to say before it was asked.
        """
        self.wire = connection.protocol
        # Nothing was awaited since it was taken: what is here is no answer to this request.
        if self.wire is None or self.wire.should_close:
            raise ServerDisconnectedError("the service has sent something unasked")
        await super().start(connection)
        return self

    @property
    def regular(self) -> bool:
        """Whether its head is one that a strict parser would have taken."""
        codings = [value.lower() for name, value in self.raw_headers if name.lower() == _CODING]
        return (
            self.status >= _OK
            and codings in ([], [b"chunked"])
            and all(_NAME(name) and not _CONTROL(value) for name, value in self.raw_headers)
        )

    def watch(self) -> None:
        """See to it that the reader learns of a lost connection, whatever the client's parser did."""
        lost = None if self.wire is None else self.wire.closed
        if lost is not None:
            lost.add_done_callback(lambda _: self._cut())

    def destroy(self) -> None:
        """Close the connection, also if it was given back already."""
        self.close()
        if self.wire is not None:
            self.wire.close()

    def _cut(self) -> None:
        if not self.content.is_eof() and self.content.exception() is None:
            self.content.set_exception(ClientPayloadError("the connection ended before the body"))
