"""Terms of a cache: how long values live, how long loads may take, and what it tells of itself.

::

    stored          fresh_until                            stale_until
      |--- fresh -------|------------- stale -------------------|  gone
                  ^     |  given at once, and loaded anew        ^
                  |     |  in the background                     |
                  |                                              `-- who asks waits for a load
                  '-- early: loaded anew before anybody has to wait

A life (``ttl``) is the fresh part. The stale part is what *fail-safe* lives on: while it lasts,
an old value stands in for one that is late or cannot be had.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, NamedTuple, TypeAlias, final

from aiopatterns.core.clock import rng
from aiopatterns.core.telemetry import Event
from aiopatterns.core.validate import (
    choice,
    count,
    in_range,
    non_negative,
    optional_count,
    optional_positive,
    plain_function,
)

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "MISSING",
    "Bounds",
    "CacheStatistics",
    "Eviction",
    "Life",
    "LoadFailed",
    "LoadTimeouts",
    "Missing",
    "Ttl",
]

Eviction: TypeAlias = Literal["s3fifo", "lru"]


class Missing(Enum):
    """The type of :data:`MISSING`."""

    MISSING = "missing"


#: Stands for a value that is not there; a None is one that is.
MISSING: Final = Missing.MISSING


class Life(NamedTuple):
    """Until when a value is fresh, and until when it may be given out stale (monotonic seconds)."""

    fresh_until: float
    stale_until: float


@final
@dataclass(frozen=True, slots=True)
class Ttl:
    """How long values live.

    Args:
        fresh: Seconds that a value is fresh; None is for ever, 0 stores nothing (callers at the
            same time still share one load).
        stale: Seconds after that in which the old value is given out at once while it is loaded
            anew in the background, and in which it stands in for a load that fails.
        negative: Seconds that a None lives, and a key that a batch loader has left out; it never
            goes stale. None: a None lives as other values do, a left-out key is not stored.
        early: How eagerly a value is loaded anew before its life is over: beta of XFetch, 1 is a
            good value, 0 is off. The longer a load takes, the earlier it begins.
        jitter: Part of the fresh life that is taken off by chance, 0 to 1, so that what was
            loaded together does not expire together.
        sliding: Whether the life begins anew with every answer, in the memory of this process
            alone; a backend keeps to the life that the value was stored with.

    Raises:
        ValueError: A value is out of its range; ``stale`` needs a ``fresh`` above 0, and
            ``early`` and ``stale`` need one that ends.

    Source: Vattani, Chierichetti, Lowenstein, "Optimal Probabilistic Cache Stampede Prevention",
    VLDB 2015 (XFetch).
    """

    fresh: float | None
    stale: float = 0.0
    negative: float | None = None
    early: float = 0.0
    jitter: float = 0.0
    sliding: bool = False

    def __post_init__(self) -> None:
        if self.fresh is not None:
            non_negative("ttl", self.fresh)
        non_negative("stale", self.stale)
        if self.negative is not None:
            non_negative("negative", self.negative)
        non_negative("early", self.early)
        in_range("jitter", self.jitter, 0.0, 1.0)
        if (self.stale or self.early) and not self.fresh:
            msg = f"stale and early need a ttl that is above 0 and ends, not {self.fresh!r}"
            raise ValueError(msg)

    @staticmethod
    def of(ttl: Ttl | float | None) -> Ttl:
        """Return ``ttl`` as terms; a number is the fresh life alone."""
        return ttl if isinstance(ttl, Ttl) else Ttl(ttl)

    def life(self, value: object, now: float) -> Life | None:
        """Return the life of a value that is stored now, or None if it is not to be stored."""
        if value is MISSING or (value is None and self.negative is not None):
            return Life(now + self.negative, now + self.negative) if self.negative else None
        if self.fresh is None:
            return Life(math.inf, math.inf)
        if not self.fresh:
            return None
        fresh = self.fresh * (1.0 - self.jitter * rng().random()) if self.jitter else self.fresh
        return Life(now + fresh, now + fresh + self.stale)

    @property
    def retry_floor(self) -> float:
        """Seconds after a failed load in which a stale value is not loaded anew again."""
        return min(_RETRY_FLOOR, (self.fresh or 0.0) / 10)


# A source that fails is asked again that often at most while there is a stale value.
_RETRY_FLOOR: Final = 5.0


@final
@dataclass(frozen=True, slots=True)
class LoadTimeouts:
    """How long loads may take, and what becomes of one that nobody waits for any more.

    Args:
        soft: Seconds after which a caller who waits takes the value that is at hand, stale or
            not, while the load goes on. Where there is none, the caller waits on.
        hard: Seconds after which a load is cancelled, its key is free, and its callers get a
            ``TimeoutExceededError`` (or the stale value).
        abandoned: What happens when the last caller is cancelled: the load is cancelled too
            (``"cancel"``), or runs to its end and is stored (``"finish"``).

    Raises:
        ValueError: A value is out of its range, or ``soft`` is not below ``hard``.
    """

    soft: float | None = None
    hard: float | None = None
    abandoned: Literal["cancel", "finish"] = "cancel"

    def __post_init__(self) -> None:
        optional_positive("soft", self.soft)
        optional_positive("hard", self.hard)
        choice("abandoned", self.abandoned, ("cancel", "finish"))
        if self.soft is not None and self.hard is not None and self.soft >= self.hard:
            msg = f"soft must be below hard ({self.hard!r}), not {self.soft!r}"
            raise ValueError(msg)


@final
@dataclass(frozen=True, slots=True)
class Bounds:
    """How much a cache holds in memory, and what leaves first.

    Args:
        count: Entries at most.
        weight: Weight of all entries at most; None for no such bound.
        weigh: A plain function of key and value that gives the weight of an entry, a whole number
            of at least 0; needed with ``weight``, and only then.
        eviction: ``"s3fifo"`` or ``"lru"``.

    Raises:
        ValueError: A value is out of its range, or only one of ``weight`` and ``weigh`` is given.
    """

    count: int = 10_000
    weight: int | None = None
    weigh: Callable[[Any, Any], int] | None = None
    eviction: Eviction = "s3fifo"

    def __post_init__(self) -> None:
        count("max_size", self.count)
        optional_count("weight", self.weight)
        choice("eviction", self.eviction, ("s3fifo", "lru"))
        if self.weigh is not None:
            plain_function("weigh", self.weigh)
        if (self.weight is None) is not (self.weigh is None):
            msg = f"weight and weigh go together, not weight={self.weight!r}, weigh={self.weigh!r}"
            raise ValueError(msg)

    @staticmethod
    def of(bounds: Bounds | int) -> Bounds:
        """Return ``bounds`` as terms; a number is the count of entries."""
        return bounds if isinstance(bounds, Bounds) else Bounds(bounds)


@dataclass(frozen=True, slots=True)
class CacheStatistics:
    """What a cache has done since it was made.

    Args:
        hits: Answers from the cache, stale ones included.
        misses: Questions that the memory of this process had no answer to.
        loads: Calls of loaders; a batch is one.
        joins: Questions that waited for a load that was under way.
        stale: Answers that were stale.
        evictions: Entries that left because the cache was full.
        rejected_fills: Loaded values that were not stored, because their key was invalidated
            during the load.
        errors: Loads that failed.
        size: Entries in memory now.
    """

    hits: int
    misses: int
    loads: int
    joins: int
    stale: int
    evictions: int
    rejected_fills: int
    errors: int
    size: int

    @property
    def hit_ratio(self) -> float:
        """Part of the questions that the cache had the answer to, 0 to 1; 0 without questions."""
        asked = self.hits + self.misses
        return self.hits / asked if asked else 0.0


@dataclass(frozen=True, slots=True)
class LoadFailed(Event):
    """A loader raised. Callers get the error, or a stale value; in the background only this tells.

    Args:
        cache: Name of the cache.
        key: The key, as text; of a batch the first.
        error: What was raised.
    """

    name: ClassVar[str] = "aiopatterns.cache.load_failed"
    level: ClassVar[str] = "warning"

    cache: str
    key: str
    error: Exception
