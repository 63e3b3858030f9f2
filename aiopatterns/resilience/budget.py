"""Budgets: how much extra load retries and hedges may make, together.

Retries turn a small outage into a large one: with five attempts each, a service that fails gets
five times its load just when it can bear least. A budget is one object, shared by any number of
``Retry`` and ``Hedge`` policies, that bounds their *extra* calls by the number of ordinary ones::

    begin()       a call begins           ]
      try_extra() one more for it?        ]  the policies do this by themselves
      finish_extra()  that one has ended  ]
    finish()      the call has ended      ]

Two kinds. ``Budget.tokens`` counts over time: in any ``ttl`` seconds, at most ``ratio`` extras for
each call and ``min_per_second`` on top, so that a quiet service may retry too. ``Budget.ratio``
counts what runs now: extras may be at most ``max_ratio`` of all calls in flight, with
``min_concurrency`` always free.

Guarantees: claims are synchronous, so the bound holds whenever an extra begins; a refused claim
counts nothing. Not guaranteed: anything about other processes; that ``Budget.ratio`` takes back
extras while the calls around them end.

Source: the retry budgets of Finagle and tower (tokens) and of Envoy and failsafe-go (ratio),
with their defaults of 20 %.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import Final, final

from aiopatterns.core.validate import count, in_range, non_negative, positive
from aiopatterns.core.windows import TimeWindow

__all__ = ["Budget"]

# Products of a ratio and a count are off by less: 0.29 * 100 is a little less than 29.
_EXACT: Final = 1e-9


class Budget(ABC):
    """A bound on the extra calls of the policies that share it; see the module's text.

    May be made at module level and shared between tasks and loops.

    Example::

        budget = Budget.tokens(ratio=0.2)
        reads = Retry(on=OSError, budget=budget)
        writes = Retry(on=OSError, attempts=2, budget=budget)
    """

    __slots__ = ()

    @staticmethod
    def tokens(
        ratio: float = 0.2, *, min_per_second: float = 10.0, ttl: float = 10.0
    ) -> TokenBudget:
        """Allow ``ratio`` extras for each call of the last ``ttl`` seconds.

        Args:
            ratio: Extras for each ordinary call, 0 to 1000.
            min_per_second: Extras a second that are allowed besides, at least 0.
            ttl: For how many seconds a call counts, above 0.
        """
        return TokenBudget(ratio, min_per_second=min_per_second, ttl=ttl)

    @staticmethod
    def ratio(max_ratio: float = 0.2, *, min_concurrency: int = 3) -> RatioBudget:
        """Allow extras to be ``max_ratio`` of what is in flight.

        Args:
            max_ratio: Share of all calls in flight, extras included, that may be extras, 0 to 1.
            min_concurrency: Extras in flight that are allowed in any case, at least 0.
        """
        return RatioBudget(max_ratio, min_concurrency=min_concurrency)

    @abstractmethod
    def begin(self) -> None:
        """Note that a call begins."""

    @abstractmethod
    def finish(self) -> None:
        """Note that a call, with all its extras, has ended."""

    @abstractmethod
    def try_extra(self) -> bool:
        """Claim one extra; False, and nothing is counted, if the budget is used up."""

    @abstractmethod
    def finish_extra(self) -> None:
        """Note that an extra which was claimed has ended, or will not be made."""


@final
class TokenBudget(Budget):
    """Counts calls and extras of the last ``ttl`` seconds; made by :meth:`Budget.tokens`.

    Complexity: O(1) amortised, in time and in memory.
    """

    __slots__ = ("_calls", "_extras", "_ratio", "_reserve")

    def __init__(self, ratio: float, *, min_per_second: float, ttl: float) -> None:
        self._ratio = in_range("ratio", ratio, 0.0, 1000.0)
        self._reserve = non_negative("min_per_second", min_per_second) * positive("ttl", ttl)
        self._calls = TimeWindow(ttl)
        self._extras = TimeWindow(ttl)

    def begin(self) -> None:
        """Note that a call begins."""
        self._calls.record()

    def finish(self) -> None:
        """Do nothing: this kind counts beginnings."""

    def try_extra(self) -> bool:
        """Claim one extra; False, and nothing is counted, if the budget is used up."""
        allowed = self._calls.totals().calls * self._ratio + self._reserve
        if self._extras.totals().calls + 1 > allowed + _EXACT:
            return False
        self._extras.record()
        return True

    def finish_extra(self) -> None:
        """Do nothing: an extra counts until it is ``ttl`` seconds old."""


@final
class RatioBudget(Budget):
    """Counts calls and extras in flight; made by :meth:`Budget.ratio`.

    Complexity: O(1).
    """

    __slots__ = ("_calls", "_extras", "_min", "_ratio")

    def __init__(self, max_ratio: float, *, min_concurrency: int) -> None:
        self._ratio = in_range("max_ratio", max_ratio, 0.0, 1.0)
        self._min = count("min_concurrency", min_concurrency, minimum=0)
        self._calls = 0
        self._extras = 0

    def begin(self) -> None:
        """Note that a call begins."""
        self._calls += 1

    def finish(self) -> None:
        """Note that a call, with all its extras, has ended.

        Raises:
            RuntimeError: No call is in flight.
        """
        if not self._calls:
            msg = "finish() without begin(): call begin() once before each call"
            raise RuntimeError(msg)
        self._calls -= 1

    def try_extra(self) -> bool:
        """Claim one extra; False, and nothing is counted, if the budget is used up."""
        extras = self._extras + 1
        if extras > max(self._min, self._ratio * (self._calls + self._extras) + _EXACT):
            return False
        self._extras = extras
        return True

    def finish_extra(self) -> None:
        """Note that an extra which was claimed has ended, or will not be made.

        Raises:
            RuntimeError: No extra is in flight.
        """
        if not self._extras:
            msg = "finish_extra() without try_extra(): each claim ends once"
            raise RuntimeError(msg)
        self._extras -= 1
