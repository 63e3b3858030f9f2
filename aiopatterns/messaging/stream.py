"""Stream: messages that are kept until every group of consumers has handled them.

A stream is an append-only log in a backend. Whoever appends knows nothing of who reads; each group
of consumers gets every message once, shared out among its members, and has its own place, retries
and dead letters::

    append --> [ 1 2 3 4 5 6 7 8 ]
                       ^     ^
          group "mail" |     | group "search"     a new group begins at the oldest entry

Guarantees:

* An append that has returned is kept as long as the backend keeps what it has acknowledged; one
  that was repeated for want of an answer is appended once.
* Messages of one ``append_many`` stand in its order, without others between them.
* What a group has not handled is never trimmed away: the stream is longer than ``max_length`` then,
  and :meth:`Stream.lag` tells which group is behind. A group that is of no use any more is deleted
  by ``stream.log.delete_group(name)``.

Not guaranteed: that a stream without ``max_length`` ends. It grows until somebody trims it.
"""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, final

import msgspec

from aiopatterns.backends.names import check_name
from aiopatterns.backends.opening import resolve
from aiopatterns.backends.owner import BackendOwner
from aiopatterns.core.codec import JSON, MSGPACK
from aiopatterns.core.context import new_id
from aiopatterns.core.errors import BackendUnavailableError
from aiopatterns.core.tracing import tracer
from aiopatterns.core.validate import optional_count
from aiopatterns.messaging.envelope import MAX_BYTES, Envelopes
from aiopatterns.messaging.letters import read_letter
from aiopatterns.messaging.message import Message
from aiopatterns.messaging.serving import origin
from aiopatterns.messaging.tracing import onward, sending

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Mapping

    from aiopatterns.backends.protocols import Backend, Log
    from aiopatterns.core.codec import Codec
    from aiopatterns.messaging.letters import DeadLetter

__all__ = ["Stream", "StreamStatistics"]


@final
@dataclass(frozen=True, slots=True)
class StreamStatistics:
    """What was done by this object.

    Attributes:
        appended: Messages appended.
        trimmed: Entries removed by ``max_length`` or ``trim``.
    """

    appended: int
    trimmed: int


@final
class Stream(BackendOwner):
    """A durable log of messages.

    Args:
        name: The same name in the same backend is the same stream.
        backend: Where it is, or its URL. The stream may be used over a backend that somebody has
            open, or opens it by ``async with``.
        max_length: Messages that are kept at least; older ones are trimmed, a tenth of it at a
            time, once every group has handled them. None keeps all.
        codec: How messages are written; JSON and msgpack are read.
        max_bytes: Size of a message at most, with its envelope.

    Raises:
        ValueError: A value is out of its range.
        TypeError: A value is of another type.

    Example::

        async with Stream("orders", "redis://localhost:6379", max_length=100_000) as stream:
            await stream.append({"id": 17}, key="customer-4", type="order.created")
    """

    __slots__ = ("_appended", "_max_length", "_since", "_trimmed", "backend", "envelopes")

    def __init__(
        self,
        name: str,
        backend: Backend | str,
        *,
        max_length: int | None = None,
        codec: Codec = JSON,
        max_bytes: int = MAX_BYTES,
    ) -> None:
        super().__init__(check_name("name", name))
        self.backend: Backend = resolve(backend)
        self._max_length = optional_count("max_length", max_length)
        others = (each for each in (MSGPACK, JSON) if each.name != getattr(codec, "name", None))
        self.envelopes: Final[Envelopes] = Envelopes((codec, *others), max_bytes=max_bytes)
        self._appended = self._trimmed = 0
        self._since = 0  # appended since the last trimming

    @property
    def log(self) -> Log:
        """The log below it, of bare bytes."""
        return self.backend.log(self.name)

    def statistics(self) -> StreamStatistics:
        """Return the figures so far."""
        return StreamStatistics(self._appended, self._trimmed)

    # ------------------------------------------------------------------------------- appending

    async def append(
        self,
        payload: object,
        *,
        key: str | None = None,
        type: str | None = None,
        version: int = 1,
        headers: Mapping[str, str] | None = None,
    ) -> str:
        """Append one message; return the id of its entry.

        Args:
            payload: What to say: anything the codec writes. A :class:`Message` is appended as it
                is, but for its topic, which becomes the stream's name, and its deadline: what is
                in a stream waits for ever.
            key: Messages of one key are in order, where consumers ask for it.
            type: What it is; the name of the stream by default.
            version: Version of the payload's form.
            headers: Anything else, text to text.

        Raises:
            CodecError: It cannot be written, or is too long.
            RejectedError: It would have passed too many services.
            BackendUnavailableError: Nobody answers; it may have been appended.
            ClosedError: The backend is not open.

        Cancellation: it may have been appended or not.

        Complexity: O(size), 1 round trip; with ``max_length`` 3 in a tenth of them.
        """
        with sending("stream", self.name, "append", type):
            message = self._message(payload, key, type, version, headers)
            return (await self._append([self.envelopes.encode(message)]))[0]

    async def append_many(
        self,
        payloads: Iterable[object],
        *,
        key: str | None = None,
        type: str | None = None,
        version: int = 1,
        headers: Mapping[str, str] | None = None,
    ) -> list[str]:
        """Append several messages in order, all or none; return the ids of their entries.

        Args:
            payloads: What to say in each, as in :meth:`append`.
            key: The key of all.
            type: The type of all.
            version: The version of all.
            headers: The headers of all.

        Raises:
            CodecError: One cannot be written, or is too long; none is appended.
            RejectedError: They would have passed too many services.
            BackendUnavailableError: Nobody answers; they may have been appended.
            ClosedError: The backend is not open.

        Complexity: O(size of all), 1 round trip.
        """
        encode, several = self.envelopes.encode, list(payloads)
        with sending("stream", self.name, "append", type, count=len(several)):
            return await self._append(
                [encode(self._message(each, key, type, version, headers)) for each in several]
            )

    # --------------------------------------------------------------------------------- looking

    async def length(self) -> int:
        """Return how many entries are kept. O(1), 1 round trip."""
        return await self.log.length()

    async def lag(self, group: str) -> int:
        """Return how many entries ``group`` has not taken in hand yet; 1 round trip.

        Raises:
            ValueError: There is no such group.
        """
        return await self.log.lag(group)

    async def dead_letters(self, *, group: str, limit: int = 100) -> list[DeadLetter]:
        """Return the newest messages that ``group`` has given up, at most 10,000 are kept.

        Args:
            group: The group.
            limit: How many at most.

        Raises:
            ValueError: There is no such group, or ``limit`` is below 1.
        """
        found = await self.log.dead(group, limit=limit)
        return [read_letter(stored, reason, self.envelopes) for stored, reason in found]

    async def requeue(self, ids: Collection[str], *, group: str) -> int:
        """Hand these dead letters out again, attempts counted anew; return how many there were.

        Args:
            ids: Of the dead letters.
            group: The group that gave them up; others never see them again.

        Raises:
            ValueError: There is no such group.
        """
        return await self.log.requeue(group, ids)

    async def trim(self, max_length: int) -> int:
        """Remove the oldest entries beyond ``max_length`` that every group has handled.

        Args:
            max_length: Entries to keep at least, 0 or more.

        Returns:
            How many were removed.
        """
        removed = await self.log.trim(max_length=max_length, keep_unread=True)
        self._trimmed += removed
        return removed

    # --------------------------------------------------------------------------- private core

    def _message(
        self,
        payload: object,
        key: str | None,
        type: str | None,
        version: int,
        headers: Mapping[str, str] | None,
    ) -> Message:
        if isinstance(payload, Message):
            headers = onward(payload.headers)
            return msgspec.structs.replace(payload, topic=self.name, deadline=None, headers=headers)
        headers = headers if tracer() is None else onward(headers)
        correlation, causation, hops = origin(self.name)
        message_id = new_id()
        more: dict[str, Any] = {} if headers is None else {"headers": headers}
        return Message(
            id=message_id,
            type=self.name if type is None else type,
            version=version,
            topic=self.name,
            key=key,
            correlation_id=correlation or message_id,
            causation_id=causation,
            hops=hops,
            payload=payload,
            **more,
        )

    async def _append(self, bodies: list[bytes]) -> list[str]:
        ids = await self.log.append_many(bodies)
        self._appended += len(ids)
        if self._max_length is not None:
            self._since += len(ids)
            if self._since >= max(1, self._max_length // 10):
                self._since = 0
                with suppress(BackendUnavailableError):  # the messages are there all the same
                    await self.trim(self._max_length)
        return ids
