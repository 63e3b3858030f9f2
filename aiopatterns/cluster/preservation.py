"""Self-preservation: when too many leases lapse at once, the network is likelier dead than they.

A registry that is cut off from half of its instances, or that has lost its data, sees what it
would see if half of them had died. If it forgot them all, it would turn a fault of its own into an
outage of the service. So a mass lapse is not believed: those who lapsed are kept apart, as *stale*,
to be tried when nobody else is left::

    one lapses                       gone
    two or more within one ttl,
      and fewer than 85 % remain  -> stale ---- comes back, or says goodbye ----> no more stale
                                       |------- 85 % are there again ----------> gone
                                       `------- 10 x ttl later ----------------> gone

Nobody's absence is believed for one ttl, however few they are, after the connection to the backend
was lost (:meth:`Preservation.doubt`), or when all records are gone at once: the server may have
lost what it knew, and instances need a moment to register anew.

Otherwise a service needs four known instances for that; of three, two may well die together. Only
what was ready is kept: who was starting or draining is not missed by callers.

Pure and synchronous: the caller brings the time.

Source: Eureka's self-preservation mode, whose renewal threshold is 85 % as well. There the lapsed
stay among the living; here they are set apart, so that a caller meets a dead one last.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, final

from aiopatterns.core.validate import in_range, positive

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping

    from aiopatterns.cluster.instance import ServiceInstance

__all__ = ["FEWEST", "KEEP", "RATIO", "TOGETHER", "Preservation"]

#: Share of the known instances of which fewer must remain.
RATIO: Final = 0.85
#: How many must be known.
FEWEST: Final = 4
#: How many must lapse within one ttl.
TOGETHER: Final = 2
#: How many times the ttl the lapsed are kept.
KEEP: Final = 10


@dataclass(slots=True)
class _Missing:
    """One that is not there any more and has not said goodbye."""

    instance: ServiceInstance
    since: float
    until: float = -math.inf  # when it is forgotten; long ago if it is not kept at all


@final
class Preservation:
    """Which of those who lapsed are not believed to be dead; one for each service.

    Args:
        ttl: Seconds of a lease.
        ratio: Share of the known that must remain for a lapse to be believed; 0 believes all.

    Complexity: a look is O(n).
    """

    __slots__ = ("_doubt_until", "_missing", "_ratio", "_ready", "_ttl")

    def __init__(self, *, ttl: float, ratio: float = RATIO) -> None:
        self._ttl = positive("ttl", ttl)
        self._ratio = in_range("ratio", ratio, 0.0, 1.0)
        self._ready: Mapping[str, ServiceInstance] = {}
        self._missing: dict[str, _Missing] = {}
        self._doubt_until = -math.inf

    def look(
        self, ready: Mapping[str, ServiceInstance], present: Collection[str], *, now: float
    ) -> tuple[ServiceInstance, ...]:
        """Take in who is there now.

        Args:
            ready: Those that are ready, by their ids.
            present: Ids of all that have a record, also of those that have left.
            now: Seconds on any clock that only grows.

        Returns:
            Those to keep as stale, by their ids.
        """
        gone = {name: each for name, each in self._ready.items() if name not in present}
        if gone and not present:
            self.doubt(now=now)
        self._ready = ready
        self._missing |= {name: _Missing(each, now) for name, each in gone.items()}
        self._missing = {
            name: each
            for name, each in self._missing.items()
            if name not in present and now < max(each.until, each.since + self._ttl)
        }
        self._judge(now)
        kept = [name for name, each in self._missing.items() if now < each.until]
        return tuple(self._missing[name].instance for name in sorted(kept))

    def doubt(self, *, now: float) -> None:
        """Believe no absence for one ttl, from the next look on: the backend was away."""
        self._doubt_until = now + self._ttl

    def due(self) -> float:
        """When the next look would find fewer to keep if nothing happens; infinite for never."""
        kept = [each.until for each in self._missing.values() if each.until > -math.inf]
        return min(kept, default=math.inf)

    def _judge(self, now: float) -> None:
        """Decide on the missing."""
        missing = self._missing.values()
        for each in missing:
            if each.until <= now:
                each.until = -math.inf
        if len(self._ready) >= self._ratio * (len(self._ready) + len(missing)):
            for each in missing:
                each.until = -math.inf
            return
        recent = [each for each in missing if now < each.since + self._ttl]
        for each in recent:
            if now < self._doubt_until:
                each.until = max(each.until, self._doubt_until)
            if len(recent) >= TOGETHER and len(self._ready) + len(missing) >= FEWEST:
                each.until = each.since + KEEP * self._ttl
