"""Live messages over Redis.

Channel ``c`` is ``<namespace>:ch:<c>`` on the server. A reader is an inbox: what arrives is put
into it by the connection, and taken out by whoever iterates, so a slow reader holds up nobody.

Redis sends a message once for every name of a connection that it fits, all of them in a row. A
reader takes the first; another copy is one that comes in under a *further* name with the same
channel and bytes, for a second message would come in under the first name again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from aiopatterns.backends.inbox import Inbox
from aiopatterns.backends.names import check_data, check_name, check_names, check_notices
from aiopatterns.backends.records import Notice
from aiopatterns.backends.redis.hub import Name
from aiopatterns.core.validate import count, optional_function

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Sequence
    from types import TracebackType
    from typing import Self

    from aiopatterns.backends.redis.client import RedisClient
    from aiopatterns.backends.redis.hub import Hub

__all__ = ["RedisPubSub", "RedisSubscribed", "glob"]


@final
class RedisPubSub:
    """The protocol ``PubSub`` in Redis.

    Args:
        client: The connections.
        kind: Second part of the names of its channels on the server.
    """

    __slots__ = ("_client", "_prefix")

    def __init__(self, client: RedisClient, *, kind: str = "ch") -> None:
        self._client = client
        self._prefix = client.key(kind, "")

    async def publish(self, channel: str, data: bytes) -> int:
        """Give ``data`` to all who are subscribed now; return how many, as the server counts.

        All subscriptions of one backend to a name are one to the server. 1 round trip.
        """
        check_name("channel", channel)
        check_data("data", data)
        return int(await self._client.once("PUBLISH", self._prefix + channel, data))

    async def publish_many(self, notices: Sequence[Notice]) -> list[int]:
        """Publish each of ``notices``, in order; return how many received each. 1 round trip."""
        check_notices(notices)
        prefix = self._prefix
        return await self._client.once_each(
            [("PUBLISH", prefix + channel, data) for channel, data in notices]
        )

    def subscribe(
        self,
        *channels: str,
        patterns: Collection[str] = (),
        capacity: int = 1_000,
        on_gap: Callable[[], object] | None = None,
    ) -> RedisSubscribed:
        """Listen on ``channels``, and on all that fit ``patterns``, inside ``async with``."""
        check_names("channels", channels)
        check_names("patterns", patterns)
        if not channels and not patterns:
            raise ValueError("subscribe needs at least one of channels and patterns")
        literal = [Name(False, (self._prefix + each).encode()) for each in channels]
        globs = [Name(True, (glob(self._prefix) + glob(each)).encode()) for each in patterns]
        return RedisSubscribed(
            self._client.hub,
            (*literal, *globs),
            prefix=self._prefix,
            capacity=count("capacity", capacity),
            on_gap=optional_function("on_gap", on_gap),
        )


@final
class RedisSubscribed(Inbox):
    """An open subscription; made by :meth:`RedisPubSub.subscribe`.

    Args:
        hub: The subscriptions of the backend.
        names: What to read, as the server has it.
        prefix: What to cut off the names of channels.
        capacity: Messages that wait for the reader at most.
        on_gap: Called when messages may have been missed.
    """

    __slots__ = ("_hub", "_last", "_prefix", "_seen", "names")

    def __init__(
        self,
        hub: Hub,
        names: Collection[Name],
        *,
        prefix: str = "",
        capacity: int = 1_000,
        on_gap: Callable[[], object] | None = None,
    ) -> None:
        super().__init__(capacity=capacity, on_gap=on_gap)
        self.names: tuple[Name, ...] = tuple(dict.fromkeys(names))
        self._hub = hub
        self._prefix = len(prefix.encode())
        self._last: tuple[bytes, bytes] | None = None
        self._seen: set[Name] = set()

    async def __aenter__(self) -> Self:
        self._begin()
        try:
            await self._hub.add(self)
        except BaseException:
            self._end()
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def take(self, name: Name, channel: bytes, data: bytes) -> None:
        """Take a message that came in under ``name``, unless it is another copy of the last."""
        if len(self.names) > 1 and self._is_copy(name, (channel, data)):
            return
        self.deliver(Notice(channel[self._prefix :].decode("utf-8", "replace"), data))

    def close(self) -> None:
        """Take no more; what was received can still be read, then the iteration ends."""
        self._hub.remove(self)
        self._end()

    def _is_copy(self, name: Name, message: tuple[bytes, bytes]) -> bool:
        if message == self._last and name not in self._seen:
            self._seen.add(name)
            return True
        self._last, self._seen = message, {name}
        return False


def glob(text: str) -> str:
    r"""Return ``text``, a glob of ``*``, ``?`` and ``\``, as Redis has it: it also knows ``[``."""
    literal, parts = False, list[str]()
    for character in text:
        escape = "\\" if character == "[" and not literal else ""
        parts.append(escape + character)
        literal = character == "\\" and not literal
    return "".join(parts) + "\\" * literal
