"""Heartbeats: who has been silent for too long.

The simplest detector of failures: everybody beats at a known pace, and who has not been heard of for
``timeout`` seconds counts as dead::

    beat   beat   beat                                   beat
     |------|------|------------- timeout ------------->| |
                                                      dead  alive again

Guarantees: the time is this process's own, so clocks of others do not matter; one beat makes alive
again; a beat costs the same however many beat.

Not guaranteed: that the dead are dead. A silent network, or this very process when it was blocked,
looks the same. The timeout has to allow for both; :class:`~aiopatterns.cluster.detector.PhiAccrual`
learns what is usual instead.

Source: the deadline detector of Pekko and of Moleculer (30 s).
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import final

from aiopatterns.core.clock import monotonic
from aiopatterns.core.validate import positive, text

__all__ = ["DetectorStatistics", "Heartbeats"]


@final
@dataclass(frozen=True, slots=True)
class DetectorStatistics:
    """What a detector of failures knows at one instant.

    Attributes:
        alive: How many are alive.
        dead: How many have beaten once and are dead.
        beats: Beats heard since the detector was made.
    """

    alive: int
    dead: int
    beats: int


@final
class Heartbeats:
    """A detector of failures with a fixed deadline.

    Keeps everybody who has ever beaten until :meth:`forget`; has no task and no timer.

    Args:
        timeout: Seconds of silence after which somebody is dead; three or more times the pace of
            the beats.

    Raises:
        ValueError: ``timeout`` is not above 0.

    Complexity: O(1) for a beat and a question, O(d) for the list of the d dead.

    Example::

        peers = Heartbeats(timeout=30)
        peers.beat("a")
        peers.is_alive("a")  # True, for 30 s
    """

    __slots__ = ("_beats", "_last", "_timeout")

    def __init__(self, timeout: float = 30.0) -> None:
        self._timeout = positive("timeout", timeout)
        self._last: OrderedDict[str, float] = OrderedDict()  # the most silent first
        self._beats = 0

    def beat(self, id: str) -> None:
        """Note a sign of life.

        Args:
            id: Of whom.
        """
        self._last[text("id", id)] = monotonic()
        self._last.move_to_end(id)
        self._beats += 1

    def is_alive(self, id: str) -> bool:
        """Whether ``id`` has beaten in time; False for one that has never."""
        last = self._last.get(id)
        return last is not None and monotonic() - last < self._timeout

    def dead(self) -> tuple[str, ...]:
        """Return who has beaten once and is dead now, the most silent first."""
        now = monotonic()
        silent: list[str] = []
        for who, last in self._last.items():
            if now - last < self._timeout:
                break
            silent.append(who)
        return tuple(silent)

    def forget(self, id: str) -> None:
        """Forget ``id``, who has left or is not expected any more; harmless if unknown."""
        self._last.pop(id, None)

    def statistics(self) -> DetectorStatistics:
        """Return the figures of this moment."""
        dead = len(self.dead())
        return DetectorStatistics(alive=len(self._last) - dead, dead=dead, beats=self._beats)
