"""Backoff: how long to wait before the next try.

A backoff is a frozen value. ``backoff.delay(n, rng=...)`` is the wait before attempt ``n + 1``: a
*base* that grows with ``n`` up to a cap, changed by *jitter*, so that a thousand callers who
failed together do not come back together::

    base      Constant     d      d      d      d
              Linear       d     2d     3d     4d     ... cap
              Exponential  i     if     if^2   if^3   ... cap

    jitter    "none"         base
              "full"         anywhere in [0, base]             spreads best
              "equal"        anywhere in [base/2, base]        never very short
              "decorrelated" a random walk: anywhere in [initial, 3 x previous]
              Proportional   base, up to x times it more or less
              Additive       base, plus anything in [0, x]

Guarantees: the result is finite, never negative and never above the cap, for every ``n``; nothing
overflows. The same dice give the same delays.

Source: the jitter kinds are those of "Exponential Backoff And Jitter" (AWS Architecture Blog,
2015); the defaults (full jitter, cap of 5 s) are those of the AWS SDKs.
"""

from __future__ import annotations

import math
from dataclasses import KW_ONLY, dataclass
from typing import Final, Literal, Protocol, TypeAlias, final

from aiopatterns.core.validate import at_least, choice, count, in_range, non_negative, positive

__all__ = [
    "Additive",
    "Backoff",
    "Constant",
    "Dice",
    "Exponential",
    "Jitter",
    "Linear",
    "Proportional",
]

# A random walk forgets where it began: after this many steps one more makes no difference.
_WALK: Final = 64
# Counts above this are not exact as floats, and larger ones do not even fit.
_MANY: Final = 2**53


class Dice(Protocol):
    """The one thing a backoff asks of a source of chance."""

    def random(self) -> float:
        """Return a number in [0, 1)."""
        ...


class Backoff(Protocol):
    """Anything that says how long to wait."""

    def delay(self, n: int, *, rng: Dice) -> float:
        """Return the seconds to wait before attempt ``n + 1`` (``n`` counts failures, from 1)."""
        ...


@final
@dataclass(frozen=True, slots=True)
class Proportional:
    """Jitter of up to ``ratio`` times the base, up or down.

    Args:
        ratio: 0 to 1; 0.25 is plus or minus a quarter.
    """

    ratio: float

    def __post_init__(self) -> None:
        in_range("ratio", self.ratio, 0.0, 1.0)


@final
@dataclass(frozen=True, slots=True)
class Additive:
    """Jitter that adds anything from 0 to ``seconds``.

    Args:
        seconds: At least 0.
    """

    seconds: float

    def __post_init__(self) -> None:
        non_negative("seconds", self.seconds)


Jitter: TypeAlias = Literal["none", "full", "equal", "decorrelated"] | Proportional | Additive


@final
@dataclass(frozen=True, slots=True)
class Constant:
    """The same delay every time.

    Args:
        seconds: The delay, at least 0.
        jitter: Any kind but ``"decorrelated"``, which needs a cap.
    """

    seconds: float
    _: KW_ONLY
    jitter: Jitter = "none"

    def __post_init__(self) -> None:
        non_negative("seconds", self.seconds)
        _check_jitter(self.jitter, ("none", "full", "equal"))

    def delay(self, n: int, *, rng: Dice) -> float:
        """Return the seconds to wait before attempt ``n + 1``."""
        count("n", n)
        return _jittered(self.jitter, self.seconds, rng)


@final
@dataclass(frozen=True, slots=True)
class Linear:
    """``step``, twice ``step``, three times ``step``... up to ``cap``.

    Args:
        step: Seconds by which the delay grows, at least 0.
        cap: The longest delay, at least ``step``.
        jitter: How the delay is varied.
    """

    step: float
    _: KW_ONLY
    cap: float = 60.0
    jitter: Jitter = "none"

    def __post_init__(self) -> None:
        non_negative("step", self.step)
        at_least("cap", non_negative("cap", self.cap), self.step)
        _check_jitter(self.jitter, ("none", "full", "equal", "decorrelated"))

    def delay(self, n: int, *, rng: Dice) -> float:
        """Return the seconds to wait before attempt ``n + 1``."""
        count("n", n)
        if self.jitter == "decorrelated":
            return _walked(self.step, self.cap, n, rng)
        base = min(self.step * min(n, _MANY), self.cap)
        return min(_jittered(self.jitter, base, rng), self.cap)


@final
@dataclass(frozen=True, slots=True)
class Exponential:
    """``initial``, then ``factor`` times as much each time, up to ``cap``.

    Args:
        initial: The first delay in seconds, above 0.
        factor: Growth, at least 1.
        cap: The longest delay, at least ``initial``.
        jitter: How the delay is varied.
    """

    initial: float = 0.1
    factor: float = 2.0
    cap: float = 5.0
    jitter: Jitter = "full"

    def __post_init__(self) -> None:
        positive("initial", self.initial)
        at_least("factor", positive("factor", self.factor), 1.0)
        at_least("cap", positive("cap", self.cap), self.initial)
        _check_jitter(self.jitter, ("none", "full", "equal", "decorrelated"))

    def delay(self, n: int, *, rng: Dice) -> float:
        """Return the seconds to wait before attempt ``n + 1``."""
        count("n", n)
        if self.jitter == "decorrelated":
            return _walked(self.initial, self.cap, n, rng)
        try:
            base = min(self.initial * math.pow(self.factor, n - 1), self.cap)
        except OverflowError:
            base = self.cap
        return min(_jittered(self.jitter, base, rng), self.cap)


def _check_jitter(jitter: Jitter, names: tuple[str, ...]) -> None:
    if not isinstance(jitter, (Proportional, Additive)):
        choice("jitter", jitter, names)


def _jittered(jitter: Jitter, base: float, rng: Dice) -> float:
    """Vary ``base``; with dice that show 1 this is the longest delay there is."""
    if isinstance(jitter, Proportional):
        return base * (1.0 + jitter.ratio * (2.0 * rng.random() - 1.0))
    if isinstance(jitter, Additive):
        return base + jitter.seconds * rng.random()
    if jitter == "full":
        return base * rng.random()
    if jitter == "equal":
        return base * (0.5 + 0.5 * rng.random())
    return base


def _walked(first: float, cap: float, n: int, rng: Dice) -> float:
    """Walk ``n`` decorrelated steps anew: as a backoff has no memory, each delay is a whole walk.

    So delays are distributed as in the original, where each step starts from the last delay.
    """
    delay = first
    for _ in range(min(n, _WALK)):
        delay = min(first + (3.0 * delay - first) * rng.random(), cap)
    return delay
