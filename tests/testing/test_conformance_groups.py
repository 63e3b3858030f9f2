"""Consumer groups of a log: memory and Redis keep the contract."""

from __future__ import annotations

from aiopatterns.testing.conformance import GroupConformance
from tests.testing.homes import OnMemory, OnRedis


class TestMemory(OnMemory, GroupConformance): ...


class TestRedis(OnRedis, GroupConformance): ...
