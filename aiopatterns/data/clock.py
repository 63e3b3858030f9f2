"""Hybrid time: stamps that follow cause and effect, and stay near the clock on the wall.

Clocks of machines differ. If the last writer is whoever has the latest wall time, a node whose
clock is a minute ahead overwrites, for a minute, what others write *after* reading its values. A
hybrid logical clock never falls behind a stamp that it has seen, so an effect is always later
than its cause; with no messages it is the wall clock::

    a (a minute ahead)   12:01:00.000 #0 ---- is seen by b --.
    b (right)            12:00:00.000 #0                      '--> 12:01:00.000 #1  later than a's

Guarantees:

* Stamps of one clock grow, also when its machine sets the time back.
* A stamp that was made after :meth:`HybridClock.update` is later than the one that was seen.
* Stamps of several nodes are totally ordered: by time, counter and the name of the node.
* A stamp further ahead than ``max_drift`` is refused, so that one broken clock does not carry all
  others away.

Not guaranteed: that of two *independent* events the one with the later stamp happened later.

Source: Kulkarni et al., "Logical Physical Clocks", OPODIS 2014.
"""

from __future__ import annotations

from typing import Final, NamedTuple, final

from aiopatterns.core.clock import wall
from aiopatterns.core.validate import instance, positive, text

__all__ = ["MAX_DRIFT", "HybridClock", "Stamp"]

#: Seconds that another clock may be ahead, unless told otherwise.
MAX_DRIFT: Final = 60.0


@final
class Stamp(NamedTuple):
    """A point in hybrid time; later ones compare greater.

    Attributes:
        time: Milliseconds since 1970-01-01 UTC.
        counter: Which of those with the same time.
        node: Who made it.
    """

    time: int
    counter: int
    node: str


@final
class HybridClock:
    """The clock of one node.

    Args:
        node: Name of the node, different from those of all others.
        max_drift: Seconds that another node's clock may be ahead of this one's.

    Raises:
        TypeError: A value is of another type.
        ValueError: ``node`` is empty, or ``max_drift`` is not above 0.

    Example::

        clock = HybridClock("a")
        first = clock.now()
        assert first < clock.now()
    """

    __slots__ = ("_last", "_max_drift", "node")

    def __init__(self, node: str, *, max_drift: float = MAX_DRIFT) -> None:
        self.node: Final[str] = text("node", node)
        self._max_drift = positive("max_drift", max_drift)
        self._last = Stamp(0, 0, node)

    def now(self, *, after: Stamp | None = None) -> Stamp:
        """Return a stamp later than all that this clock has made or seen.

        Args:
            after: Another stamp to be later than, however far ahead it is: one from this node's
                own storage, which may be older than this clock.

        Raises:
            TypeError: ``after`` is no Stamp.
        """
        last = self._last
        if after is not None:
            last = max(last, instance("after", after, Stamp, "a Stamp"))
        time = int(wall() * 1_000)
        counter = 0
        if time <= last.time:
            time, counter = last.time, last.counter + 1
        self._last = Stamp(time, counter, self.node)
        return self._last

    def update(self, stamp: Stamp) -> Stamp:
        """See a stamp of another node; returns a later one of this node.

        Args:
            stamp: What the other node has made.

        Raises:
            TypeError: ``stamp`` is no Stamp.
            ValueError: It is too far ahead; this clock stays as it was.
        """
        self.check(stamp)
        return self.now(after=stamp)

    def check(self, stamp: Stamp) -> None:
        """Refuse a stamp that no honest clock can have made yet.

        Raises:
            TypeError: ``stamp`` is no Stamp.
            ValueError: It is too far ahead.
        """
        instance("stamp", stamp, Stamp, "a Stamp")
        ahead = stamp.time / 1_000 - wall()
        if ahead > self._max_drift:
            msg = (
                f"stamp must be at most {self._max_drift:g} s ahead, not {ahead:.3f} s; the clock"
                f" of {stamp.node!r} is wrong, or that of {self.node!r}"
            )
            raise ValueError(msg)

    def __repr__(self) -> str:
        return f"HybridClock({self.node!r})"
