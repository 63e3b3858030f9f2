"""Publishing: what an owner does, told to whoever looks, by the backend that is there anyway.

A process that has a backend open may put the figures of its owners into the directory
:data:`DIRECTORY`, where a dashboard, ``top`` and a supervisor find those of all processes::

    process 1 --every 2 s--> directory "statistics"  <--reads-- dashboard, top, supervisor
    process 2 --every 2 s-->   member: kind/name/host/pid/number, ttl 10 s

A process that dies is gone after the ttl. What is published is bounded: figures longer than
:data:`MAX_BYTES` are left out, the member stays. An outage is waited out, silently: figures are
worth nothing afterwards.
"""

from __future__ import annotations

import os
import socket
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, final

import msgspec

from aiopatterns.core.clock import sleep, wall
from aiopatterns.core.codec import MSGPACK
from aiopatterns.core.context import new_id
from aiopatterns.core.errors import BackendError, CodecError
from aiopatterns.core.validate import function, text

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiopatterns.backends.protocols import Backend

__all__ = ["DIRECTORY", "INTERVAL", "MAX_BYTES", "TTL", "Published", "Publisher", "published"]

#: Name of the directory.
DIRECTORY: Final = "statistics"
#: Seconds between two looks at an owner.
INTERVAL: Final = 2.0
#: Seconds for which the figures of a process stay after it was last heard of.
TTL: Final = 10.0
#: Size of one owner's figures at most, encoded.
MAX_BYTES: Final = 16_384


@final
class Published(msgspec.Struct, frozen=True, kw_only=True):
    """One owner of one process, as others see it.

    Args:
        kind: What it is, such as ``"worker"``.
        name: Its name.
        host: Where it runs.
        pid: Its process.
        number: Tells owners of one name in one process apart.
        started_at: When it began, in seconds since 1970, by its own clock.
        figures: Its statistics, as plain data; None if they are too long, or none can be had.
        at: When it said so, in seconds since 1970, by its own clock.
    """

    kind: str
    name: str
    host: str
    pid: int
    number: str
    started_at: float
    figures: dict[str, Any] | None = None
    at: float = 0.0


@final
class Publisher:
    """Publishes the figures of one owner while :meth:`run` runs.

    Args:
        backend: An open backend.
        kind: What the owner is.
        name: Its name.
        figures: Returns its statistics, a dataclass.
    """

    __slots__ = ("_backend", "_figures", "_member", "_who")

    def __init__(
        self, backend: Backend, *, kind: str, name: str, figures: Callable[[], object]
    ) -> None:
        self._backend = backend
        self._figures = function("figures", figures)
        self._who = Published(
            kind=text("kind", kind),
            name=text("name", name),
            host=socket.gethostname(),
            pid=os.getpid(),
            number=new_id(),
            started_at=wall(),
        )
        who = self._who
        self._member = f"{kind}/{name}/{who.host}/{who.pid}/{who.number}"

    async def run(self) -> None:
        """Publish every :data:`INTERVAL` seconds, for ever.

        Cancellation: what was published last stays until its ttl has passed.
        """
        directory = self._backend.directory(DIRECTORY)
        while True:
            with suppress(BackendError):  # nobody misses figures that are old by then
                await directory.put(self._member, self._encoded(), ttl=TTL)
            await sleep(INTERVAL)

    def _encoded(self) -> bytes:
        now = msgspec.structs.replace(self._who, at=wall())
        try:
            figures = msgspec.to_builtins(self._figures())
            data = MSGPACK.encode(msgspec.structs.replace(now, figures=figures))
        except (CodecError, TypeError):
            data = b""
        return data if 0 < len(data) <= MAX_BYTES else MSGPACK.encode(now)


async def published(backend: Backend, *, kind: str | None = None) -> list[Published]:
    """Return what all processes publish now; what cannot be read is left out.

    Args:
        backend: An open backend.
        kind: Only owners of this kind.

    Complexity: O(members), 1 round trip.
    """
    snapshot = await backend.directory(DIRECTORY).snapshot()
    found = [_decoded(data) for data in snapshot.members.values()]
    return [each for each in found if each is not None and kind in {None, each.kind}]


def _decoded(data: bytes) -> Published | None:
    try:
        return MSGPACK.decode(data, Published)
    except CodecError:
        return None
