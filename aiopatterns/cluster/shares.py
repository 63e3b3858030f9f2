"""Weights as small whole numbers, so that a schedule can be written down.

``[1.0, 0.5]`` is 2 turns and 1 turn. Only exact ratios count: where none is small enough, there is
no schedule to write down and the caller has to do without.
"""

from __future__ import annotations

from fractions import Fraction
from math import gcd, lcm
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["MOST", "rounded", "shares"]

#: Turns of one schedule at most, unless there are more endpoints.
MOST: Final = 1_024
# A weight such as 0.1 or 0.3 is meant as a fraction with a denominator up to this.
_DENOMINATOR: Final = 1_000
_EXACT: Final = 1e-9


def shares(weights: Sequence[float]) -> list[int] | None:
    """Return the smallest whole numbers with the ratios of ``weights``.

    Args:
        weights: At least one, each above 0.

    Returns:
        None if their sum would be more than :data:`MOST`, and more than there are weights.

    Complexity: O(n).
    """
    if len(set(weights)) == 1:
        return [1] * len(weights)
    fractions = [Fraction(each).limit_denominator(_DENOMINATOR) for each in weights]
    if any(
        abs(fraction - Fraction(weight)) > _EXACT * weight
        for fraction, weight in zip(fractions, weights, strict=True)
    ):
        return None
    common = lcm(*(each.denominator for each in fractions))
    whole = [int(each * common) for each in fractions]
    divisor = gcd(*whole)
    counted = [each // divisor for each in whole]
    return counted if sum(counted) <= max(MOST, len(weights)) else None


def rounded(weights: Sequence[float]) -> list[int]:
    """Return whole numbers from 1 on with about the ratios of ``weights``, exact if they can be.

    Complexity: O(n).
    """
    if (exact := shares(weights)) is not None:
        return exact
    unit = sum(weights) / max(MOST, len(weights))
    return [max(1, round(each / unit)) for each in weights]
