"""One load: which keys it brings, and which of them are still wanted.

A key that is invalidated, set or loaded anew meanwhile is taken out of ``live``. Those who wait
for it get their answer, for they asked before that; nothing of it is stored.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Generic, NamedTuple, TypeAlias, TypeVar, final

from aiopatterns.core.errors import LoadAbortedError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiopatterns.cache.tags import Stamp
    from aiopatterns.cache.terms import Missing
    from aiopatterns.core.flight import Flight

__all__ = ["ANY", "NEW", "Failed", "Found", "Load"]

K = TypeVar("K")
V = TypeVar("V")

#: The floor of a load that takes what another tier has, and of one that takes nothing from there.
ANY = -math.inf
NEW = math.inf


class Failed(NamedTuple):
    """What a batch loader gave for one key: an error instead of a value."""

    error: Exception


Found: TypeAlias = "dict[K, V | Missing | Failed]"
"""What a load has brought, by key."""


@final
class Load(Generic[K, V]):
    """One load of one key or more.

    Args:
        keys: What it brings, each once, at least one.
        tags: What the values are tagged with.
        stamp: The versions of the tags before the load began.
        epoch: The epoch of the near tier then.
        floor: A value of another tier is taken if it is fresh for longer than that.
    """

    __slots__ = ("epoch", "flight", "floor", "key", "live", "single", "stamp", "tags")

    flight: Flight[Found[K, V]]

    def __init__(
        self, keys: Sequence[K], tags: Sequence[str], *, stamp: Stamp, epoch: int, floor: float
    ) -> None:
        self.key: K = keys[0]  # for messages
        self.single: bool = len(keys) == 1
        self.live: dict[K, None] = dict.fromkeys(keys)
        self.tags: Sequence[str] = tags
        self.stamp: Stamp = stamp
        self.epoch: int = epoch
        self.floor: float = floor

    def aborted(self) -> LoadAbortedError:
        """Return the error of those who wait for a load that has cancelled itself."""
        return LoadAbortedError(key=str(self.key))
