"""The settings of a peer's failure detector, and the times that follow from them.

How a crash is seen, with the defaults, in a cluster of a hundred::

    0 s     the process dies
    <= 1.5  its two watchers probe it, each in 3 x probe, and everybody else does now and then
    + 0.5   no answer directly (timeout), through three helpers, or over the reliable road: suspect
    + 2.5   others have confirmed it, it is asked a last time and says nothing: dead
    + 1     the last one has heard of it

Source: Das, Gupta and Motivala, "SWIM", DSN 2002; the defaults are memberlist's, but for a probe
every 0.5 s instead of 1 s and a suspicion that is shorter: its minimum covers a pause of half a
second and the way of a contradiction. Where pauses are longer, make it longer.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import log10
from typing import Final, final

from aiopatterns.core.validate import at_least, count, positive

__all__ = ["Swim"]

#: Pauses are as long in a small cluster as in a large one; only the way of a contradiction is not.
_LEAST: Final = 1.5


@final
@dataclass(frozen=True, slots=True)
class Swim:
    """How often and how patiently a peer looks after the others.

    Args:
        probe: Seconds from one probe to the next; each asks one member.
        timeout: Seconds until a probe that is not answered goes other ways; below ``probe``.
        gossip: Seconds from one round of gossip to the next, while there is news.
        suspicion: How long a suspect may contradict, at least: so many probe periods, times the
            decimal logarithm of the number of members, or 1.5 if that is more. With the defaults
            1.9 s for up to thirty members, 2.5 s for a hundred, 3.8 s for a thousand. Without
            confirmation by others it is twice as long.
        sync: Seconds from one exchange of the whole state to the next; grows with the cluster.
        indirect: How many helpers ask as well.
        fanout: How many members each round of gossip tells.

    Raises:
        ValueError: A value is out of its range; ``timeout`` is not below ``probe``.

    Example::

        Swim(probe=5, timeout=3, gossip=0.5)  # over the internet
    """

    probe: float = 0.5
    timeout: float = 0.2
    gossip: float = 0.2
    suspicion: float = 2.5
    sync: float = 30.0
    indirect: int = 3
    fanout: int = 3

    def __post_init__(self) -> None:
        """Refuse what cannot work."""
        positive("probe", self.probe)
        if positive("timeout", self.timeout) >= self.probe:
            msg = f"timeout must be below probe, which is {self.probe!r}, not {self.timeout!r}"
            raise ValueError(msg)
        positive("gossip", self.gossip)
        at_least("suspicion", self.suspicion, 1.0)
        positive("sync", self.sync)
        count("indirect", self.indirect, minimum=0)
        count("fanout", self.fanout)

    def patience(self, members: int) -> tuple[float, float]:
        """Return the least and the most seconds that a suspect has, in a cluster of that size."""
        low = self.suspicion * self.probe * max(log10(max(members, 1)), _LEAST)
        return low, 2 * low
