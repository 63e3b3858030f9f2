"""The watchdog: a thread that keeps the leases while the event loop is blocked, and says so.

A function that computes for seconds without a pause, or waits for something the wrong way, blocks
the loop of its worker. The process is alive, but no step goes out, and without more its lease would
end and its jobs run twice. So a thread looks whether the loop still moves::

    loop     tick   tick   tick   (blocked ........................................)   tick
    thread    .      .      .      .   renews   .   warns once   renews   .   renews     .
                                   |<------- 1 s ------->|

Guarantees: a warning event with the stack of the loop's thread after :data:`BLOCKED` seconds, once
for each time; the leases are kept for :data:`KEEP` seconds of it.

Not guaranteed: the interpreter's lock. Code that holds it for longer than the lease, as some C
extensions do, stops this thread as well.
"""

from __future__ import annotations

import sys
import threading
import traceback
from contextlib import suppress
from operator import methodcaller
from typing import TYPE_CHECKING, Final, final

from aiopatterns.core.clock import call_later, monotonic
from aiopatterns.core.errors import BackendError
from aiopatterns.core.telemetry import emit, listening
from aiopatterns.jobs.workerevents import LoopBlocked

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from types import FrameType
    from typing import Protocol

    class Timer(Protocol):
        """What a timer of the loop can do."""

        def cancel(self) -> None: ...


__all__ = ["BLOCKED", "KEEP", "Watchdog"]

#: Seconds after which a loop that does not move counts as blocked.
BLOCKED: Final = 1.0
#: Seconds for which the leases of a blocked loop are kept; then others may have its jobs.
KEEP: Final = 600.0
_TICK: Final = 0.25


@final
class Watchdog:
    """Watches the loop that runs now, from :meth:`start` to :meth:`stop`.

    Args:
        name: Of the worker.
        keepers: Renew a lease each; called in the thread.
        lease: Seconds that a lease lasts.
    """

    __slots__ = (
        "_beat",
        "_keepers",
        "_lease",
        "_loop_thread",
        "_name",
        "_pause",
        "_renewed",
        "_stopped",
        "_thread",
        "_timer",
        "_warned",
    )

    def __init__(self, name: str, keepers: Sequence[Callable[[], bool]], *, lease: float) -> None:
        self._name = name
        self._keepers = keepers
        self._lease = lease
        self._pause = min(_TICK, lease / 8)
        self._loop_thread = threading.get_ident()
        self._beat = self._renewed = monotonic()
        self._warned = False
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._watch, name=f"watchdog {name}", daemon=True)
        self._timer: Timer | None = None

    def start(self) -> None:
        """Begin."""
        self._tick()
        self._thread.start()

    def stop(self) -> None:
        """End; the thread may need a moment, but renews nothing any more."""
        self._stopped.set()
        self._keepers = ()  # their connections end with them
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _tick(self) -> None:
        """The loop moves."""
        self._beat = monotonic()
        self._timer = call_later(self._pause, self._tick)

    def _watch(self) -> None:
        while not self._stopped.wait(self._pause):
            self._look(monotonic())

    def _look(self, now: float) -> None:
        """See whether the loop moves; if not, renew, and warn."""
        blocked = now - self._beat
        if blocked < BLOCKED:
            self._warned = False
        elif not self._warned:
            self._warned = True
            self._warn(blocked)
        # The loop renews every third of a lease, so at its last beat two thirds were left.
        if self._lease / 4 <= blocked < KEEP and now - self._renewed >= self._lease / 4:
            self._renewed = now
            for keep in self._keepers:
                with suppress(BackendError):  # the next try is near
                    keep()

    def _warn(self, blocked: float) -> None:
        if listening():
            emit(LoopBlocked(self._name, blocked, _stack_of(self._loop_thread)))


def _stack_of(thread: int) -> str:
    """Return where a thread is; the frames of all threads are let go of at once."""
    # CPython's documented, if underscored, way to another thread's frame.
    frame: FrameType | None = methodcaller("_current_frames")(sys).get(thread)
    return "".join(traceback.format_stack(frame))
