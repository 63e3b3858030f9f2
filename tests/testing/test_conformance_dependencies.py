"""Jobs that wait for others: memory and Redis keep the contract."""

from __future__ import annotations

from aiopatterns.testing.conformance import DependenciesConformance
from tests.testing.homes import OnMemory, OnRedis


class TestMemory(OnMemory, DependenciesConformance): ...


class TestRedis(OnRedis, DependenciesConformance): ...
