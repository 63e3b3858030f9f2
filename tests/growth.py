"""How the time of a piece of work grows with its size: for costs that must not be quadratic."""

from __future__ import annotations

from collections.abc import Callable
from time import process_time

__all__ = ["growth"]


def growth(work: Callable[[int], Callable[[], object]], size: int, *, times: int = 8) -> float:
    """Return how many times as long ``times`` as much takes: about ``times`` if it is linear.

    Args:
        work: Makes, for a size, what is to be measured; the making is not.
        size: The smaller size.
        times: How many times that the larger size is. Quadratic work takes its square.
    """
    return _best(work, size * times) / _best(work, size)


def _best(work: Callable[[int], Callable[[], object]], size: int) -> float:
    """Return the CPU time of the fastest of three, which neighbours disturb least."""
    taken: list[float] = []
    for _ in range(3):
        step = work(size)
        start = process_time()
        step()
        taken.append(process_time() - start)
    return max(min(taken), 1e-4)
