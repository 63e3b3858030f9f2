"""Five replicas of one record that write, talk and are cut off from each other, by chance.

Each replica keeps what :func:`~aiopatterns.data.reconcile` leaves of all that it has met. After
the storm all talk to all, in an order of chance; then all must hold the same.
"""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

from aiopatterns.core import clock
from aiopatterns.data import HybridClock, Versioned, reconcile

if TYPE_CHECKING:
    from aiopatterns.data import Strategy

NODES = "abcde"


class Replica:
    """One node: a clock, what it holds, and all written versions that it has ever met."""

    def __init__(self, name: str, strategy: Strategy) -> None:
        self.clock = HybridClock(name)
        self.strategy = strategy
        self.held: tuple[Versioned, ...] = ()

    def write(self, value: Any, *, deleted: bool = False) -> Versioned:
        """Replace all that is here."""
        stamp = self.clock.now()
        if self.held:
            value = None if deleted else value
            new = Versioned.replacing(self.held, value, stamp=stamp, deleted=deleted)
        else:
            new = Versioned.first("k", value, stamp=stamp)
        self.held = (new,)
        return new

    def receive(self, versions: tuple[Versioned, ...]) -> None:
        """Meet what another replica holds."""
        for each in versions:
            self.clock.update(each.stamp)
        if versions:
            self.held = reconcile((*self.held, *versions), strategy=self.strategy)


async def storm(strategy: Strategy, *, steps: int = 40) -> list[Versioned]:
    """Let replicas write and talk, then compare; returns all versions that were written."""
    rng: random.Random = clock.rng()
    replicas = [Replica(name, strategy) for name in NODES]
    written: list[Versioned] = []
    sides = [0] * len(replicas)
    for _ in range(steps):
        await clock.sleep(rng.choice([0.0, 0.0005, 1.0]))
        if rng.random() < 0.1:
            sides = [rng.randrange(2) for _ in replicas]
        if rng.random() < 0.4:
            deleted = rng.random() < 0.2
            replica = rng.choice(replicas)
            written.append(replica.write([rng.randrange(9)], deleted=deleted))
            continue
        to, source = rng.sample(range(len(replicas)), 2)
        if sides[to] == sides[source]:
            replicas[to].receive(replicas[source].held)
    pairs = [(left, right) for left in replicas for right in replicas] * 2
    rng.shuffle(pairs)
    for left, right in pairs + [(left, right) for left in replicas for right in replicas] * 2:
        left.receive(right.held)
    for replica in replicas:
        assert replica.held == replicas[0].held
    if written:
        everything = reconcile(written, strategy=strategy)
        assert everything == replicas[0].held
    return written
