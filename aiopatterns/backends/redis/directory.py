"""Members that expire, in Redis.

::

    {ap:dir:<name>}:data   hash   member -> fence:data
    {ap:dir:<name>}:exp    zset   member -> when it expires, in us
    {ap:dir:<name>}:rev    string the revision: the server's time in us when it was made, or one
                                  more than the last

Whoever comes next removes who has expired, and makes one new revision for all of them. Every
key lives :data:`MARGIN` longer than the longest life of a member, so nothing stays for ever; a
revision that was forgotten begins anew by time, above all before.

A change is told on a channel. A watcher looks when it hears of one, and every ``interval`` by
itself; each look names the revision that it has, so that an idle one costs a few bytes.
"""

from __future__ import annotations

import math
from contextlib import AsyncExitStack, suppress
from functools import partial
from typing import TYPE_CHECKING, Final, final

from anyio import move_on_after

from aiopatterns.backends.names import check_data, check_fence, check_name, escaped, milliseconds
from aiopatterns.backends.records import Members
from aiopatterns.backends.redis.scripts import Script
from aiopatterns.core.clock import monotonic
from aiopatterns.core.errors import BackendUnavailableError
from aiopatterns.core.validate import positive

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractAsyncContextManager
    from types import TracebackType
    from typing import Self

    from aiopatterns.backends.protocols import Subscribed
    from aiopatterns.backends.redis.client import RedisClient

__all__ = ["MARGIN", "RedisDirectory", "RedisWatch"]

#: Milliseconds for which the keys of a directory outlive its last member.
MARGIN: Final = 600_000

_PUT: Final = Script("directory_put")
_REMOVE: Final = Script("directory_remove")
_LOOK: Final = Script("directory_look")


@final
class RedisDirectory:
    """The protocol ``Directory`` in Redis.

    Args:
        client: The connections.
        name: The name.
    """

    __slots__ = ("_channel", "_client", "_keys", "_name")

    def __init__(self, client: RedisClient, name: str) -> None:
        tag = client.tag("dir", escaped(check_name("name", name), "}"))
        self._client = client
        self._keys = [f"{tag}:{field}" for field in ("data", "exp", "rev")]
        self._name = name
        self._channel = client.key("dir", name)

    async def put(self, member: str, data: bytes, *, ttl: float, fence: int = 0) -> bool:
        """Add, change or renew ``member``; False if a higher fence is stored. 1 round trip."""
        check_name("member", member)
        check_data("data", data)
        life = milliseconds("ttl", ttl)
        args = (member, data, check_fence(fence), life, MARGIN, self._channel)
        return bool(await self._client.run(_PUT, self._keys, args, repeatable=True))

    async def remove(self, member: str, *, fence: int | None = None) -> bool:
        """Remove ``member``; False if it was absent or a higher fence is stored. 1 round trip."""
        check_name("member", member)
        above = "" if fence is None else check_fence(fence)
        args = (member, above, self._channel)
        return bool(await self._client.run(_REMOVE, self._keys, args, repeatable=True))

    async def snapshot(self) -> Members:
        """Return the members that are alive, and the revision. 1 round trip."""
        found = await self.look(None)
        assert found is not None, "only a look with a revision comes back with nothing"
        return found

    async def look(self, seen: int | None) -> Members | None:
        """Return the members, or None if the revision is still ``seen``. 1 round trip."""
        args = ("" if seen is None else seen, MARGIN, self._channel)
        reply = await self._client.run(_LOOK, self._keys, args, repeatable=True)
        revision = int(reply[0])
        if revision == seen:
            return None
        pairs = zip(reply[1::2], reply[2::2], strict=True)
        return Members(revision, {name.decode(): data.partition(b":")[2] for name, data in pairs})

    def watch(self, *, interval: float = 1.0) -> RedisWatch:
        """Iterate over snapshots, inside ``async with``."""
        from aiopatterns.backends.redis.pubsub import RedisPubSub

        # One message at most waits: whoever looks has then seen all of them.
        changes = RedisPubSub(self._client, kind="dir")
        subscribe = partial(changes.subscribe, self._name, capacity=1)
        return RedisWatch(self, subscribe, positive("interval", interval))


@final
class RedisWatch:
    """Snapshots of a directory as they change; made by :meth:`RedisDirectory.watch`."""

    __slots__ = ("_directory", "_interval", "_seen", "_stack", "_subscribe", "_told", "confirmed")

    def __init__(
        self,
        directory: RedisDirectory,
        subscribe: Callable[[], AbstractAsyncContextManager[Subscribed]],
        interval: float,
    ) -> None:
        self._directory = directory
        self._subscribe = subscribe
        self._interval = interval
        self._stack: AsyncExitStack | None = None
        self._told: Subscribed | None = None
        self._seen: int | None = None
        self.confirmed: float = -math.inf

    async def __aenter__(self) -> Self:
        if self._stack is not None:
            msg = "this watch is open already; enter it only once"
            raise RuntimeError(msg)
        stack = self._stack = AsyncExitStack()
        try:
            self._told = await stack.enter_async_context(self._subscribe())
        except BaseException:
            self._stack = None
            raise
        self._seen = None
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        stack, self._stack, self._told = self._stack, None, None
        if stack is not None:
            await stack.aclose()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Members:
        while (told := self._told) is not None:
            members = await self._look()
            if members is not None:
                self._seen = members.revision
                return members
            with move_on_after(self._interval), suppress(StopAsyncIteration):
                await told.__anext__()
        raise StopAsyncIteration

    async def _look(self) -> Members | None:
        """Look; while the server is away nothing has changed as far as anybody knows."""
        asked = monotonic()
        try:
            members = await self._directory.look(self._seen)
        except BackendUnavailableError:
            return None
        self.confirmed = asked
        return members
