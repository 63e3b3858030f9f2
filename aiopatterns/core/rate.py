"""How often: a rate, and the answer of whoever limits to it.

They stand here because local limiters, the backends' limiters and the job queue share them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple, final

from aiopatterns.core.validate import positive

__all__ = ["Grant", "Rate"]


@final
@dataclass(frozen=True, slots=True)
class Rate:
    """So many, per so many seconds.

    Args:
        amount: How many, above 0.
        per: In how many seconds, above 0.

    Example::

        Rate(100)  # a hundred a second
        Rate(5, per=60)  # five a minute
    """

    amount: float
    per: float = 1.0

    def __post_init__(self) -> None:
        positive("amount", self.amount)
        positive("per", self.per)

    def __str__(self) -> str:
        return f"{self.amount:g} per {self.per:g} s"


class Grant(NamedTuple):
    """The answer of a limiter.

    Attributes:
        allowed: Whether the call may start; only then something was consumed.
        retry_after: Seconds until it would be allowed, 0 if it is, infinite if it never will be.
        remaining: How many whole calls could start now.
        reset_after: Seconds until nothing is remembered of the calls so far.
    """

    allowed: bool
    retry_after: float
    remaining: int
    reset_after: float
