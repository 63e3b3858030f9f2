"""Where the state of one memory backend lives: whether it is open, and what time it is there.

Every memory class holds the home of its backend and asks it two things: :meth:`MemoryHome.now`,
and whether it may answer at all (:meth:`MemoryHome.require_open`).

* **Open** is counted. The first entry opens, the last exit closes; what waits inside is told so
  by the callbacks of :meth:`MemoryHome.on_close`. The state stays as long as the backend object
  lives, so a backend that is opened again, also on another loop, is the server it was before.
* **Time** is monotonic. Server time is the wall clock of the first opening plus what has passed
  since on the monotonic clock, so a jump of the wall clock changes nothing. It never goes back,
  also if the backend is opened again under another source of time, as ``simulate`` brings it.

Like everything here it belongs to one thread.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from aiopatterns.core.clock import monotonic, wall
from aiopatterns.core.errors import ClosedError

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["MemoryHome"]

# Lives are kept to the millisecond; sums of floats are off by far less than this, but they are.
_GRAIN: Final = 1e-7


@final
class MemoryHome:
    """Openness and time of one memory backend.

    Args:
        url: How errors call the backend.

    Complexity: O(1) throughout; a clock reading is one addition more than the clock itself.
    """

    __slots__ = ("_closing", "_entries", "_epoch", "_latest", "_shift", "url")

    def __init__(self, url: str = "memory://") -> None:
        self.url: str = url
        self._entries = 0
        self._closing: dict[Callable[[], object], None] = {}
        self._shift = 0.0  # from the monotonic clock to the time that is kept here
        self._latest = 0.0
        self._epoch: float | None = None  # what `now` 0 is in seconds since 1970

    @property
    def is_open(self) -> bool:
        """Whether somebody has it open."""
        return self._entries > 0

    @property
    def users(self) -> int:
        """How many have it open."""
        return self._entries

    def require_open(self) -> None:
        """Refuse to work unless open.

        Raises:
            ClosedError: Nobody has the backend open.
        """
        if not self._entries:
            msg = f"the backend {self.url} is not open; use it inside 'async with backend:'"
            raise ClosedError(msg)

    def now(self) -> float:
        """Return the seconds by which lives are measured; they only grow."""
        return monotonic() + self._shift

    def after(self, seconds: float) -> float:
        """Return when a life of ``seconds`` that begins now is over: when ``now`` is not below."""
        return self.now() + seconds - _GRAIN

    def time(self) -> float:
        """Return the server's time in seconds since 1970.

        Raises:
            ClosedError: Nobody has the backend open.
        """
        self.require_open()
        assert self._epoch is not None, "set by the first opening"
        return self._epoch + self.now()

    def enter(self) -> None:
        """Open, or count one more user."""
        if not self._entries:
            # Only another source of time can have gone back since it was closed.
            self._shift += max(0.0, self._latest - self.now())
            if self._epoch is None:
                self._epoch = wall() - self.now()
        self._entries += 1

    def leave(self) -> None:
        """Count one user less; the last one closes and tells those who wait inside.

        Raises:
            ClosedError: Nobody has the backend open.
        """
        self.require_open()
        self._entries -= 1
        if self._entries:
            return
        self._latest = self.now()
        closing, self._closing = self._closing, {}
        for callback in closing:
            callback()

    def on_close(self, callback: Callable[[], object]) -> None:
        """Call ``callback`` once when the backend closes; it must not raise."""
        self._closing[callback] = None

    def forget(self, callback: Callable[[], object]) -> None:
        """Do not call ``callback`` any more; harmless if it was called already."""
        self._closing.pop(callback, None)
