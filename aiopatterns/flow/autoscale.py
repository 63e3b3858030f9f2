"""Autoscaling: how many workers a pool should have, decided from what can be seen.

A fixed number of workers is wrong twice a day: too few at the peak, idle at night. What users
feel is the wait, so the wait decides::

                  oldest ready item waits > target_wait
          grow: at most double, no more than have something to do        up to max
    limit ------------------------------------------------------->
          <-------------------------------------------------------
          shrink: by the workers that were idle for `idle` seconds       down to min

The decision is a pure function of a :class:`Load`; the pool carries it out. Growing is quick
(doubling reaches any maximum in a few looks), shrinking is slow, as load comes in waves.

Guarantees:

* ``min <= limit <= max`` at all times, and a worker that runs an item is never interrupted.
* Nothing looks while there is nothing to decide: an idle pool at its minimum has no timer.
* Items that wait for a key, a retry or a token of the rate limit do not count as load: more
  workers would not help them.

Not guaranteed: the wait itself; beyond ``max`` workers it grows with the load.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, final

from aiopatterns.core.validate import count, positive

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["Autoscale", "Load"]

# Looks are never closer together than this: a timer may ring a little early.
_SHORTEST = 0.005


@final
@dataclass(frozen=True, slots=True)
class Load:
    """What the decision is made from.

    Args:
        limit: How many workers there may be now.
        ready: Items that only need a worker.
        oldest_wait: Seconds that the oldest of them has waited.
        idle: For each idle worker, seconds since it had something to do.
    """

    limit: int
    ready: int = 0
    oldest_wait: float = 0.0
    idle: Sequence[float] = ()


@final
@dataclass(frozen=True, slots=True)
class Autoscale:
    """A number of workers that follows the load.

    Args:
        min: Fewest workers the limit shrinks to, at least 1.
        max: Most workers, at least ``min``.
        target_wait: Seconds an item may wait for a worker before more are allowed.
        idle: Seconds without work after which a worker above ``min`` leaves.

    Raises:
        ValueError: A number is senseless, or ``max`` is below ``min``.

    Example::

        WorkerPool(resize_image, workers=Autoscale(2, 64, target_wait=0.1))
    """

    min: int
    max: int
    target_wait: float = 0.05
    idle: float = 10.0

    def __post_init__(self) -> None:
        count("min", self.min)
        count("max", self.max)
        if self.max < self.min:
            msg = f"max must be at least min ({self.min}), not {self.max}"
            raise ValueError(msg)
        positive("target_wait", self.target_wait)
        positive("idle", self.idle)

    def decide(self, load: Load) -> int:
        """Return how many workers there should be.

        Args:
            load: What the pool looks like.

        Returns:
            The new limit, between ``min`` and ``max``; the old one if nothing should change.
        """
        if load.ready and load.oldest_wait > self.target_wait:
            return min(self.max, load.limit + min(load.ready, load.limit))
        surplus = sum(1 for each in load.idle if each >= self.idle)
        return max(self.min, load.limit - surplus)

    def next_look(self, load: Load) -> float | None:
        """Return in how many seconds the decision could change; None if only new items change it.

        Args:
            load: What the pool looks like after the decision was carried out.
        """
        if load.ready and load.limit < self.max:
            left = self.target_wait - load.oldest_wait
            # After a step of growth the new workers get as long to show their effect.
            return self.target_wait if left < 0 else max(_SHORTEST, left)
        if load.limit > self.min:
            longest = max(load.idle, default=0.0)
            return max(_SHORTEST, self.idle - longest)
        return None
