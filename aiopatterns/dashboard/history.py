"""History: the last ten minutes of a fleet, so that plots are not empty for who comes later.

One ring of moments for all series; a series has a value for each moment, or None where it was not
there. Kept is what was looked at: while nobody looks, nothing is asked and nothing is kept.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Final, final

import msgspec

if TYPE_CHECKING:
    from aiopatterns.dashboard.overview import Overview

__all__ = ["POINTS", "History", "Plots", "QueuePlots"]

#: Moments that are kept: ten minutes, at one a second.
POINTS: Final = 600

Point = float | None


@final
class QueuePlots(msgspec.Struct, frozen=True, kw_only=True):
    """The series of one queue, one value for each moment."""

    throughput: list[Point]
    p50: list[Point]
    p99: list[Point]
    queued: list[Point]
    running: list[Point]
    dead: list[Point]


@final
class Plots(msgspec.Struct, frozen=True, kw_only=True):
    """All series.

    Attributes:
        at: The moments, in seconds since 1970.
        queues: By the names of queues.
        streams: The lag of groups, by ``stream/group``.
    """

    at: list[float]
    queues: dict[str, QueuePlots]
    streams: dict[str, list[Point]]


@final
class History:
    """The newest moments.

    Complexity: O(queues) to add one; memory O(points x queues).
    """

    __slots__ = ("_moments",)

    def __init__(self) -> None:
        self._moments: deque[tuple[float, dict[str, tuple[Point, ...]], dict[str, int]]] = deque(
            maxlen=POINTS
        )

    def __len__(self) -> int:
        """How many moments are kept."""
        return len(self._moments)

    def add(self, overview: Overview) -> None:
        """Keep what plots need of a moment."""
        queues: dict[str, tuple[Point, ...]] = {
            each.name: (
                each.throughput,
                each.p50,
                each.p99,
                each.queued,
                each.running,
                each.dead,
            )
            for each in overview.queues
        }
        lags = {f"{each.name}/{each.group}": each.lag for each in overview.streams}
        self._moments.append((overview.at, queues, lags))

    def plots(self) -> Plots:
        """Return all series, oldest first; those that the last moment has. O(points x queues)."""
        moments = self._moments
        if not moments:
            return Plots(at=[], queues={}, streams={})
        _, queues, lags = moments[-1]
        return Plots(
            at=[at for at, _, _ in moments],
            queues={name: self._queue(name) for name in queues},
            streams={name: [lag.get(name) for _, _, lag in moments] for name in lags},
        )

    def _queue(self, name: str) -> QueuePlots:
        names = QueuePlots.__struct_fields__
        nothing: tuple[Point, ...] = (None,) * len(names)
        rows = [queues.get(name, nothing) for _, queues, _ in self._moments]
        columns = {each: [row[at] for row in rows] for at, each in enumerate(names)}
        return QueuePlots(**columns)
