"""Members that expire, in memory.

::

    put -----> members: data, fence, expiry ------> snapshot
    remove -'       |
                    `-- heap of expiries: what is due is removed by whoever comes next, and
                        makes one new revision for all of it

Every change wakes the watchers; each looks at the revision and takes the newest members, so a
slow one skips what it has missed.
"""

from __future__ import annotations

import math
from heapq import heapify, heappop, heappush
from typing import TYPE_CHECKING, Final, NamedTuple, final

from anyio import move_on_after

from aiopatterns.backends.names import check_data, check_fence, check_name, milliseconds
from aiopatterns.backends.records import Members
from aiopatterns.core.clock import monotonic
from aiopatterns.core.validate import positive
from aiopatterns.core.waiters import Waiters

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from aiopatterns.backends.memory.home import MemoryHome

__all__ = ["MemoryDirectory", "MemoryWatch"]

# A heap of up to twice the members is left alone, a small one always.
_SMALL: Final = 64


class _Member(NamedTuple):
    data: bytes
    fence: int
    expires: float


@final
class MemoryDirectory:
    """The protocol ``Directory`` in memory.

    Args:
        home: The backend it belongs to.
    """

    __slots__ = ("_heap", "_home", "_members", "_revision", "_watchers")

    def __init__(self, home: MemoryHome) -> None:
        self._home = home
        self._members: dict[str, _Member] = {}
        self._heap: list[tuple[float, str]] = []
        self._revision = 0
        self._watchers = Waiters()

    async def put(self, member: str, data: bytes, *, ttl: float, fence: int = 0) -> bool:
        """Add, change or renew ``member``; False if a higher fence is stored."""
        check_name("member", member)
        check_data("data", data)
        life = milliseconds("ttl", ttl) / 1_000
        check_fence(fence)
        self._look()
        stored = self._members.get(member)
        if stored is not None and stored.fence > fence:
            return False
        expires = self._home.after(life)
        self._members[member] = _Member(data, fence, expires)
        heappush(self._heap, (expires, member))
        if stored is None or (stored.data, stored.fence) != (data, fence):
            self._changed()
        return True

    async def remove(self, member: str, *, fence: int | None = None) -> bool:
        """Remove ``member``; False if it was absent or a higher fence is stored."""
        check_name("member", member)
        if fence is not None:
            check_fence(fence)
        self._look()
        stored = self._members.get(member)
        if stored is None or (fence is not None and stored.fence > fence):
            return False
        del self._members[member]
        self._changed()
        return True

    async def snapshot(self) -> Members:
        """Return the members that are alive, and the revision."""
        return self.snapshot_nowait()

    def snapshot_nowait(self) -> Members:
        """Do what :meth:`snapshot` does, as a part of another step."""
        self._look()
        return Members(self._revision, {name: each.data for name, each in self._members.items()})

    def watch(self, *, interval: float = 1.0) -> MemoryWatch:
        """Iterate over snapshots, inside ``async with``."""
        return MemoryWatch(self, self._home, positive("interval", interval))

    def revision(self) -> int:
        """Return the revision of now."""
        self._look()
        return self._revision

    async def wait(self, timeout: float) -> None:
        """Wait for a change, at most ``timeout`` seconds."""
        with move_on_after(timeout):
            await self._watchers.wait()

    def wake(self) -> None:
        """Make the watchers look."""
        self._watchers.wake_all()

    def _look(self) -> None:
        """Remove who has expired, as one change."""
        self._home.require_open()
        now, heap, members = self._home.now(), self._heap, self._members
        before = len(members)
        while heap and heap[0][0] <= now:
            name = heappop(heap)[1]
            stored = members.get(name)
            if stored is not None and stored.expires <= now:
                del members[name]
        if len(heap) > 2 * len(members) + _SMALL:
            self._heap = [(each.expires, name) for name, each in members.items()]
            heapify(self._heap)
        if len(members) < before:
            self._changed()

    def _changed(self) -> None:
        self._revision += 1
        self.wake()


@final
class MemoryWatch:
    """Snapshots of a directory as they change; made by :meth:`MemoryDirectory.watch`."""

    __slots__ = ("_directory", "_home", "_interval", "_open", "_seen", "confirmed")

    def __init__(self, directory: MemoryDirectory, home: MemoryHome, interval: float) -> None:
        self._directory = directory
        self._home = home
        self._interval = interval
        self._open = False
        self._seen: int | None = None
        self.confirmed: float = -math.inf

    async def __aenter__(self) -> Self:
        if self._open:
            msg = "this watch is open already; enter it only once"
            raise RuntimeError(msg)
        self._home.require_open()
        self._home.on_close(self._directory.wake)
        self._open = True
        self._seen = None
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._open = False
        self._directory.wake()

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> Members:
        while self._open:
            self.confirmed = monotonic()
            if self._directory.revision() != self._seen:
                members = self._directory.snapshot_nowait()
                self._seen = members.revision
                return members
            await self._directory.wait(self._interval)
        raise StopAsyncIteration
