"""Fetched: what the shared tier answers, and what goes back to it with a fill.

A fill is stored if its key still holds what it held when it was read, so each answer carries that
along: a load keeps it while it asks the source, and gives it back with the value::

    read --> Fetched(seen, ...) --> load --> Filled(seen, value) --> fill --> Stored

What is read and stored, and when it counts, is told in ``tiers.py``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, Literal, NamedTuple, TypeAlias, TypeVar

from aiopatterns.cache.invalidation import Key
from aiopatterns.cache.terms import MISSING, Life

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aiopatterns.cache.terms import Missing

__all__ = ["Fetched", "Filled", "Seen", "Stored", "Turn", "unknown"]

K = TypeVar("K", bound=Key)
V = TypeVar("V")

Stored: TypeAlias = Literal["stored", "refused", "skipped"]
"""What became of a fill: it is there; the key, its tag or all was invalidated or filled by somebody
else since it was read; or the far tier could not take it, so that nothing is known of it."""


class Seen(NamedTuple):
    """What a key held when it was read; goes back with the fill.

    Attributes:
        raw: The bytes; None if there was no key.
        at: When the read began.
        versions: Those of the tags, and of the cache; None if the key must not be filled.
    """

    raw: bytes | None
    at: float
    versions: Mapping[str, bytes] | None


class Fetched(NamedTuple, Generic[V]):
    """The far tier's answer for one key.

    Attributes:
        seen: For the fill.
        known: Whether there is an answer, fresh or stale.
        value: The answer; MISSING if it is that the source has no value.
        life: Its life, in monotonic seconds.
        cost: Seconds that the load took.
        tags: Its tags.
    """

    seen: Seen
    known: bool
    value: V | Missing
    life: Life
    cost: float
    tags: Sequence[str]


class Filled(NamedTuple, Generic[K, V]):
    """A loaded value that is to be stored: see ``Far.fill``.

    Attributes:
        key: The key.
        seen: From the read before the load.
        value: The value; MISSING if the source has none.
        life: Its life, in monotonic seconds.
        cost: Seconds that the load took.
        tags: Its tags, all of which were given to the read.
    """

    key: K
    seen: Seen
    value: V | Missing
    life: Life
    cost: float = 0.0
    tags: Sequence[str] = ()


class Turn(NamedTuple, Generic[V]):
    """The turn of this process to load a key.

    Attributes:
        fetched: What the key holds now.
        answered: Whether somebody has loaded it meanwhile: ``fetched`` is the value.
        token: What ``Far.finish`` gives back.
    """

    fetched: Fetched[V]
    answered: bool
    token: bytes | None


def unknown(seen: Seen) -> Fetched[Any]:
    """Return the answer that there is none."""
    return Fetched(seen, False, MISSING, Life(0.0, 0.0), 0.0, ())
