"""How jobs end: memory and Redis keep the contract."""

from __future__ import annotations

from aiopatterns.testing.conformance import SettlingConformance
from tests.testing.homes import OnMemory, OnRedis


class TestMemory(OnMemory, SettlingConformance): ...


class TestRedis(OnRedis, SettlingConformance): ...
