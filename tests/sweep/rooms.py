"""The scenario of each room."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.sweep.backends import backends
from tests.sweep.cache import cache
from tests.sweep.cluster import cluster
from tests.sweep.data import data
from tests.sweep.flow import flow
from tests.sweep.jobs import jobs
from tests.sweep.messaging import messaging
from tests.sweep.resilience import resilience

if TYPE_CHECKING:
    from tests.sweep.run import Scenario

__all__ = ["ROOMS"]

ROOMS: dict[str, Scenario] = {
    each.__name__: each
    for each in (backends, resilience, flow, cache, jobs, messaging, cluster, data)
}
