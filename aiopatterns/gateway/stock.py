"""Objects by what they were made of, so that a reload goes on with those whose text is the same.

A circuit that is open, a limit that is used up, a key set that was fetched: all of these are in
objects. Made anew at each reload they would be forgotten, although nothing about them has changed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, cast, final

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["Stock"]

T = TypeVar("T")


@final
class Stock:
    """Makes objects, unless they were made before of the same.

    Args:
        before: What an earlier stock has made.

    Attributes:
        made: By name, what each object was made of, and the object.
    """

    __slots__ = ("_before", "made")

    def __init__(self, before: Mapping[str, tuple[object, object]]) -> None:
        self._before = before
        self.made: dict[str, tuple[object, object]] = {}

    def take(self, name: str, text: object, make: Callable[[], T | None]) -> T | None:
        """Return the object of a name.

        Args:
            name: Always of objects of one type.
            text: Whatever it is made of.
            make: Makes it; None if it cannot be made.
        """
        for known in (self.made.get(name), self._before.get(name)):
            if known is not None and known[0] == text:
                self.made[name] = known
                return cast("T", known[1])
        made = make()
        if made is not None:
            self.made[name] = text, made
        return made

    def text(self, name: str, now: T) -> T:
        """Return what an object was made of before; ``now`` if there was none."""
        before = self._before.get(name)
        return now if before is None else cast("T", before[0])
