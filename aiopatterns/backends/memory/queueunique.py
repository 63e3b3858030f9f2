"""Unique keys: who has one, and what an enqueue under it does to that one.

A key has up to three marks::

    holder    the job that an enqueue under the key leads to
              drop, throttle: from its enqueue to its end
              debounce, keep_last: from its enqueue to its first start
    running   a keep_last job from its first start to its end: the next one waits for it
    window    a throttle job from its enqueue for its window, whatever becomes of it
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from aiopatterns.backends.memory.expiring import Expiring
from aiopatterns.backends.queuetimes import whole

if TYPE_CHECKING:
    from aiopatterns.backends.memory.home import MemoryHome
    from aiopatterns.backends.memory.queuejob import Job
    from aiopatterns.backends.queue import UniqueKey

__all__ = ["UNTIL_START", "UniqueKeys"]

#: Modes whose key is free again once their job has started.
UNTIL_START: Final = frozenset({"debounce", "keep_last"})


@final
class UniqueKeys:
    """The unique keys of one queue.

    Args:
        home: Whose time it is.

    Complexity: O(1) throughout (O(log n) for a throttle window).
    """

    __slots__ = ("_holders", "_running", "_windows")

    def __init__(self, home: MemoryHome) -> None:
        self._holders: dict[str, Job] = {}
        self._running: dict[str, str] = {}
        self._windows: Expiring[str, str] = Expiring(home)

    def holder(self, key: str) -> Job | None:
        """Return the job that has ``key``."""
        return self._holders.get(key)

    def window(self, key: str) -> str | None:
        """Return the id whose throttle window holds ``key``."""
        return self._windows.get(key)

    def running(self, unique: UniqueKey) -> str | None:
        """Return the job that a new keep_last job of the key waits for."""
        return self._running.get(unique.key) if unique.mode == "keep_last" else None

    def take(self, job: Job) -> None:
        """Give its key to ``job``, which is new."""
        unique = job.unique
        assert unique is not None, "asked for jobs with a key only"
        self._holders[unique.key] = job
        if unique.mode == "throttle" and unique.window > 0:
            self._windows.put(unique.key, job.id, whole(unique.window) / 1_000)

    def start(self, job: Job) -> None:
        """Note the first start of ``job``."""
        unique = job.unique
        if unique is None or unique.mode not in UNTIL_START or not self._leave(unique.key, job):
            return
        if unique.mode == "keep_last":
            self._running[unique.key] = job.id

    def end(self, job: Job) -> None:
        """Give the key of ``job`` back, which has ended."""
        unique = job.unique
        if unique is None:
            return
        self._leave(unique.key, job)
        if self._running.get(unique.key) == job.id:
            del self._running[unique.key]

    def _leave(self, key: str, job: Job) -> bool:
        if self._holders.get(key) is not job:
            return False
        del self._holders[key]
        return True
