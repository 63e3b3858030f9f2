"""The page that shows what runs: live figures, jobs, dead letters, and what may be done about them."""

from __future__ import annotations

from aiopatterns.dashboard.app import Dashboard, DashboardStatistics
from aiopatterns.dashboard.events import DashboardActed, DashboardFailed
from aiopatterns.dashboard.publisher import PublisherStatistics, StatisticsPublisher
from aiopatterns.dashboard.serving import serve

__all__ = [
    "Dashboard",
    "DashboardActed",
    "DashboardFailed",
    "DashboardStatistics",
    "PublisherStatistics",
    "StatisticsPublisher",
    "serve",
]
