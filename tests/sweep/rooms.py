"""The scenario of each room."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.sweep.flow import flow
from tests.sweep.jobs import jobs

if TYPE_CHECKING:
    from tests.sweep.run import Scenario

__all__ = ["ROOMS"]

ROOMS: dict[str, Scenario] = {"flow": flow, "jobs": jobs}
