"""How long one operation takes: repeated as often as it takes to tell, several times.

::

    run(1), run(10), run(100) ...   until a run takes long enough: so many operations are one repeat
    repeat, repeat, repeat          median of the seconds per operation, and how far they lie apart

The first runs warm up what is lazy; they do not count.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from statistics import median
from typing import Final, TypeAlias, final

from aiopatterns.core.clock import monotonic

__all__ = ["Measured", "Run", "repeated"]

#: Does so many operations.
Run: TypeAlias = Callable[[int], Awaitable[object]]

_FASTER: Final = 10  # by how much a calibration run may be longer than the one before
_ENOUGH: Final = 0.7  # share of the time of a repeat from which its length can be told


@final
@dataclass(frozen=True, slots=True)
class Measured:
    """How long an operation took.

    Args:
        group: What the operation belongs to.
        name: What it is.
        operations: How many made one repeat.
        seconds: Seconds an operation took, for each repeat.
    """

    group: str
    name: str
    operations: int
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle one."""
        return median(self.seconds)

    @property
    def spread(self) -> float:
        """From the fastest repeat to the slowest, as a share of the median."""
        return (max(self.seconds) - min(self.seconds)) / self.median

    @property
    def time(self) -> str:
        """The median as people read it: ``412 ns``, ``1.31 us``, ``2.5 ms``."""
        scales = ((1.0, "s"), (1e-3, "ms"), (1e-6, "us"), (1e-9, "ns"))
        scale, unit = next((each for each in scales if self.median >= each[0]), scales[-1])
        return f"{self.median / scale:.3g} {unit}"

    @property
    def rate(self) -> float:
        """Operations a second."""
        return 1.0 / self.median


async def repeated(run: Run, *, repeats: int, seconds: float) -> tuple[int, tuple[float, ...]]:
    """Return how many operations made a repeat, and the seconds one of them took in each.

    Args:
        run: Does as many operations as it is told.
        repeats: How often, after the calibration.
        seconds: How long a repeat should take.

    Complexity: about ``(repeats + 1) * seconds``, or one operation for each if that takes longer.
    """
    operations = await _calibrated(run, seconds)
    taken = [await _timed(run, operations) / operations for _ in range(repeats)]
    return operations, tuple(taken)


async def _calibrated(run: Run, seconds: float) -> int:
    """Return how many operations take about so long."""
    operations = 1
    while (taken := await _timed(run, operations)) < _ENOUGH * seconds:
        operations = max(operations + 1, int(operations * min(_FASTER, seconds / taken)))
    return operations


async def _timed(run: Run, operations: int) -> float:
    """Return how long so many operations take; never nothing, however coarse the clock is."""
    began = monotonic()
    await run(operations)
    return max(monotonic() - began, 1e-9)
