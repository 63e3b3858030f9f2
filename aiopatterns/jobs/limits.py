"""How often and how many at once: limits that the queue holds over all processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

from aiopatterns.backends.queue import Bucket
from aiopatterns.core.rate import Rate
from aiopatterns.core.validate import instance, optional_count, text

__all__ = ["Limits"]


@final
@dataclass(frozen=True, slots=True)
class Limits:
    """A limit for all jobs of one name, or for each key of them.

    Args:
        rate: How many may start in how long, spaced evenly; the others are scheduled for their
            turn, so a limited job holds no worker.
        concurrency: How many may run at once; the others wait in their order.
        key: A template over the arguments, such as ``"tenant:{tenant_id}"``: each value of it has
            a limit of its own. Without it the limit is one for all.

    Raises:
        ValueError: Neither ``rate`` nor ``concurrency`` is given, or one is out of its range.

    Example::

        Limits(rate=Rate(10, per=60), concurrency=2, key="tenant:{tenant_id}")
    """

    rate: Rate | None = None
    concurrency: int | None = None
    key: str | None = None

    def __post_init__(self) -> None:
        if self.rate is not None:
            instance("rate", self.rate, Rate, "a Rate")
        optional_count("concurrency", self.concurrency)
        if self.key is not None:
            text("key", self.key)
        if self.rate is None and self.concurrency is None:
            msg = "Limits needs rate, concurrency or both; it has neither"
            raise ValueError(msg)

    def bucket(self, key: str) -> Bucket:
        """Return the bucket named ``key`` with this limit."""
        return Bucket(key, self.rate, self.concurrency)
