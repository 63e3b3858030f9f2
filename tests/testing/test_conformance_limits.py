"""Limits of a queue: memory and Redis keep the contract."""

from __future__ import annotations

from aiopatterns.testing.conformance import LimitsConformance
from tests.testing.homes import OnMemory, OnRedis


class TestMemory(OnMemory, LimitsConformance): ...


class TestRedis(OnRedis, LimitsConformance): ...
