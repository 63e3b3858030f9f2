"""What was changed lately, so that no answer from before is kept after it.

An answer that was asked for before a change may come after it. Each change is remembered with its
time; when there are too many, the oldest go, and whatever was asked for before the newest of those
counts as changed too.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import TYPE_CHECKING, Final, final

if TYPE_CHECKING:
    from aiopatterns.gateway.cachestock import Address

__all__ = ["MOST_CHANGES", "Changes"]

#: Changes that are remembered.
MOST_CHANGES: Final = 4_096


@final
class Changes:
    """The times of the last changes.

    Args:
        most: How many are remembered.

    Complexity: O(1) for each.
    """

    __slots__ = ("_floor", "_most", "_times")

    def __init__(self, most: int = MOST_CHANGES) -> None:
        self._most = most
        self._times: OrderedDict[Address, float] = OrderedDict()
        self._floor = -math.inf

    def note(self, address: Address, now: float) -> None:
        """Remember that what is at an address was changed now (monotonic seconds)."""
        self._times[address] = now
        self._times.move_to_end(address)
        if len(self._times) > self._most:
            _, self._floor = self._times.popitem(last=False)

    def since(self, address: Address, began: float) -> bool:
        """Whether it may have been changed since something was asked for."""
        return began <= self._times.get(address, self._floor) or began <= self._floor
