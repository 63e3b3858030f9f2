"""Ids of jobs: 16 bytes as hex text, ordered by time, made without asking anybody.

::

    018f3c1a2b4d  9e41c07a55  000000002a  -3
    milliseconds  this opening  counter    partition, if the queue has several
    48 bits       40 bits       40 bits

The middle is drawn at random for each opening of a queue, so ids of two processes meet only if both
have drawn the same of 10 ** 12 numbers, in the same millisecond and at the same count. Ids are
no secrets.

Source: the layout follows UUID version 7 (RFC 9562), with a counter in place of most random bits.
"""

from __future__ import annotations

import re
from itertools import count
from typing import TYPE_CHECKING, Final, final

from aiopatterns.core.clock import rng

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Ids", "partition_of"]

_RANDOM_BITS: Final = 40
_MADE: Final = re.compile(r"[0-9a-f]{32}-([0-9]{1,6})")


@final
class Ids:
    """Makes the ids of one opening of a queue.

    Args:
        partitions: How many partitions the queue has.

    Complexity: O(1), about 0.3 us for an id.
    """

    __slots__ = ("_count", "_random", "_suffixes")

    def __init__(self, partitions: int) -> None:
        self._random = f"{rng().getrandbits(_RANDOM_BITS):010x}"
        self._count = count()
        several = partitions > 1
        self._suffixes = tuple(f"-{each}" if several else "" for each in range(partitions))

    def at(self, now: float) -> Callable[[int], str]:
        """Return what makes ids for one moment, by the partition that the job goes to.

        Args:
            now: The server's time, in seconds since 1970.
        """
        stem = f"{int(now * 1000):012x}{self._random}"
        following, suffixes = self._count.__next__, self._suffixes

        def make(partition: int) -> str:
            return f"{stem}{following():010x}{suffixes[partition]}"

        return make


def partition_of(job_id: str, partitions: int) -> int | None:
    """Return the partition that an id tells, or None for an id of the user's own."""
    if partitions == 1:
        return 0
    made = _MADE.fullmatch(job_id)
    found = None if made is None else int(made[1])
    return found if found is not None and found < partitions else None
