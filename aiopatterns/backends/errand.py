"""Errand: a plain call in a thread that is over when nobody waits for it any more.

No thread can be ended, and ``Task.cancel()`` does not wait for one. A statement would then run
after its transaction was rolled back, a lock be taken after it was given back::

    task     rollback  <-- cancelled ---------- waits ----> goes on
    thread                  begins? runs to its end here ^     | not begun: never begins

So whoever leaves early waits for a call that has begun, and a call that has not never does.
"""

from __future__ import annotations

from threading import Lock
from typing import TYPE_CHECKING, Any, final

from aiopatterns.core.threads import call_in_thread

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Errand"]


@final
class Errand:
    """One call; for calls that take milliseconds, since a loop may have to wait for one.

    Args:
        fn: A plain function.
        args: What it is called with.
    """

    __slots__ = ("_abandoned", "_args", "_fn", "_running")

    def __init__(self, fn: Callable[..., Any], *args: Any) -> None:
        self._fn = fn
        self._args = args
        self._running = Lock()
        self._abandoned = False

    async def run(self) -> Any:
        """Return what the call returns in a thread.

        Cancellation: the call has ended, or never begins.
        """
        try:
            return await call_in_thread(self._call)
        except BaseException:
            with self._running:  # it has ended, or finds that nobody wants it
                self._abandoned = True
            raise

    def _call(self) -> Any:
        with self._running:
            return None if self._abandoned else self._fn(*self._args)
