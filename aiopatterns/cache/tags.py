"""Tags: one step invalidates all entries that carry a name, however many they are.

A tag is a version number. An entry remembers the versions of its tags as they were *before* its
load began, and counts as long as all of them are the same still::

    tags: org:7 -> 41          entry k1: (org:7, 41)   counts
    invalidate org:7           entry k2: (org:7, 41)   counts
    tags: (none)               k1, k2: org:7 is not 41: gone, wherever they are

So invalidation touches no entry, keeps no set of keys, and compares no clocks. A version is never
used twice, so forgetting one invalidates, which is the safe side: that is what happens to the tags
that were used longest ago when there are too many.
"""

from __future__ import annotations

from collections import OrderedDict
from itertools import count
from typing import TYPE_CHECKING, TypeAlias, final

from aiopatterns.core.validate import text

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["Stamp", "Tags", "checked"]

Stamp: TypeAlias = "frozenset[tuple[str, int]]"
"""The versions of some tags at one instant."""


@final
class Tags:
    """The versions of tags.

    Args:
        limit: How many tags are remembered at most.

    Complexity: O(1) for each tag.
    """

    __slots__ = ("_limit", "_numbers", "_versions")

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._numbers = count(1)
        self._versions: OrderedDict[str, int] = OrderedDict()

    def __len__(self) -> int:
        return len(self._versions)

    def stamp(self, tags: Iterable[str]) -> Stamp:
        """Return the versions of ``tags`` now; to be asked before a load begins."""
        return frozenset([(tag, self._version(tag)) for tag in tags])

    def current(self, stamp: Stamp) -> bool:
        """Whether none of the tags was invalidated since."""
        return self._versions.items() >= stamp

    def invalidate(self, tags: Iterable[str]) -> None:
        """Let no earlier stamp of ``tags`` be current."""
        for tag in tags:
            self._versions.pop(tag, None)

    def _version(self, tag: str) -> int:
        version = self._versions.get(tag)
        if version is None:
            version = self._versions[tag] = next(self._numbers)
            if len(self._versions) > self._limit:
                self._versions.popitem(last=False)
        else:
            self._versions.move_to_end(tag)
        return version


def checked(tags: Iterable[str]) -> tuple[str, ...]:
    """Return ``tags`` without doubles.

    Raises:
        TypeError: It is a text instead of several, or one of them is none.
        ValueError: One is empty.
    """
    if isinstance(tags, (str, bytes)):
        msg = f"tags must be several texts, such as [{tags!r}], not {tags!r}"
        raise TypeError(msg)
    return tuple(dict.fromkeys([text("tag", tag) for tag in tags])) if tags else ()
