"""Waking idle workers: one for each thing that happens, and none in vain for long.

A worker that waits has a *bed*, a waiting line of its own, in the order of coming. Ringing wakes
the first who can take work; if nobody waits the bell is left ringing for the next who comes.
Calling a worker by its name wakes that one. A wait that is cancelled after it was woken rings
again, so the wake-up goes to the next.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from anyio import move_on_after

from aiopatterns.core.waiters import Waiters

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Bell"]


@final
class Bell:
    """Where the idle workers of one queue wait.

    Complexity: O(1) to wait, O(those that are full) to ring.
    """

    __slots__ = ("_beds", "_called", "_ringing")

    def __init__(self) -> None:
        self._beds: dict[str, tuple[Waiters, bool]] = {}
        self._called: set[str] = set()
        self._ringing = False

    def ring(self) -> None:
        """There is work: wake one, or let it ring until somebody comes."""
        for worker, (bed, deaf) in self._beds.items():
            if not deaf:
                del self._beds[worker]
                bed.wake()
                return
        self._ringing = True

    def hush(self) -> None:
        """There is no work: whoever comes now waits."""
        self._ringing = False

    def call(self, worker: str) -> None:
        """Wake ``worker``, now or when it waits next."""
        bed = self._beds.pop(worker, None)
        if bed is None:
            self._called.add(worker)
        else:
            bed[0].wake()

    def forget(self, worker: str) -> None:
        """Drop a call that ``worker`` has not waited for."""
        self._called.discard(worker)

    def wake_all(self) -> None:
        """Wake everybody, for the queue is closed."""
        beds, self._beds = self._beds, {}
        for bed, _ in beds.values():
            bed.wake()

    async def wait(self, worker: str, timeout: float, *, deaf: bool) -> bool:
        """Wait until the bell rings (unless ``deaf``) or ``worker`` is called; False on timeout.

        Cancellation: hands the wake-up on.
        """
        if self._take(worker, deaf=deaf):
            return True
        bed = Waiters()
        self._beds[worker] = bed, deaf
        lost: Callable[[], object] = (lambda: self.call(worker)) if deaf else self.ring
        try:
            with move_on_after(timeout):
                await bed.wait(lost=lost)
                return True
        finally:
            if self._beds.get(worker, (None, False))[0] is bed:
                del self._beds[worker]
        return False

    def _take(self, worker: str, *, deaf: bool) -> bool:
        """Use up what rings already."""
        if worker in self._called:
            self._called.remove(worker)
            return True
        if deaf or not self._ringing:
            return False
        self._ringing = False
        return True
