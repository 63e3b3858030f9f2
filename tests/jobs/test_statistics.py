"""Figures of all partitions are summed."""

from __future__ import annotations

from aiopatterns.backends.queue import Counts
from aiopatterns.jobs.statistics import JobStatistics, summed


def test_figures_are_summed():
    one = Counts(1, 2, 3, 4, 5, 6, False)
    assert summed([one]) == JobStatistics(1, 2, 3, 4, 5, False, 6)
    paused = one._replace(paused=True, dead=10)
    assert summed([one, paused]) == JobStatistics(2, 4, 6, 8, 15, True, 12)
