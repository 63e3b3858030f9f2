"""Bounds in time for single waits, at a price that every request can pay.

A cancel scope with a deadline costs 8 us for each wait; a :class:`Bound` is a block of the same
shape and costs 1, because all waits of one length share one timer::

    with Bound(home, budgets.of(15.0)) as bound:
        return await answer()
    raise UpstreamError(...)  # only reached when the time was over

Guarantees: only the expiry of this very block is taken by it; a cancellation from elsewhere passes,
also one that comes in the same turn of the loop.

Not guaranteed: that work which swallows its cancellation ends. It is cancelled once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from aiopatterns.core.clock import Alarms, Interrupt

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Self

    from aiopatterns.core.clock import Home

__all__ = ["Bound", "Budgets"]

# Lengths that have a timer of their own; routes share a few of them.
_MOST: Final = 256


@final
class Budgets:
    """The timers of a transport, one for each length of a wait; belongs to one loop."""

    __slots__ = ("_alarms",)

    def __init__(self) -> None:
        self._alarms: dict[float, Alarms] = {}

    def of(self, seconds: float) -> Alarms:
        """Return what rings after so many seconds."""
        return self._alarms.get(seconds) or self._new(seconds)

    def _new(self, seconds: float) -> Alarms:
        if len(self._alarms) >= _MOST:  # those that are armed ring all the same
            self._alarms.clear()
        alarms = self._alarms[seconds] = Alarms(seconds)
        return alarms


@final
class Bound:
    """A block that ends by itself when its time is over; used once, in the task that makes it.

    Args:
        home: The loop.
        alarms: Tell when it is over.
    """

    __slots__ = ("_alarms", "_bell")

    def __init__(self, home: Home, alarms: Alarms) -> None:
        self._bell = Interrupt(home)
        self._alarms: Alarms | None = alarms
        alarms.arm(self._bell.fire)

    def move(self, alarms: Alarms) -> None:
        """Begin anew with the time of ``alarms``; harmless when the block has ended."""
        if self._alarms is not None:
            self._alarms.disarm(self._bell.fire)
            self._alarms = alarms
            alarms.arm(self._bell.fire)

    def __enter__(self) -> Self:
        """Begin; the time runs since this bound was made."""
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> bool:
        """Take the cancellation that was ours; everything else goes on."""
        assert self._alarms is not None, "it is used once"
        self._alarms.disarm(self._bell.fire)
        self._alarms = None
        return self._bell.took(exc)
