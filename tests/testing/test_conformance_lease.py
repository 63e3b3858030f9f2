"""Leases: memory and Redis keep the contract."""

from __future__ import annotations

from aiopatterns.testing.conformance import LeaseConformance
from tests.testing.homes import OnMemory, OnRedis


class TestMemory(OnMemory, LeaseConformance): ...


class TestRedis(OnRedis, LeaseConformance): ...
