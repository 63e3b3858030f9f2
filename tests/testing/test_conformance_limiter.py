"""Shared rates: memory and Redis keep the contract."""

from __future__ import annotations

from aiopatterns.testing.conformance import LimiterConformance
from tests.testing.homes import OnMemory, OnRedis


class TestMemory(OnMemory, LimiterConformance): ...


class TestRedis(OnRedis, LimiterConformance): ...
