"""Keys and values: memory and Redis keep the contract."""

from __future__ import annotations

from aiopatterns.testing.conformance import KvConformance
from tests.testing.homes import OnMemory, OnRedis


class TestMemory(OnMemory, KvConformance): ...


class TestRedis(OnRedis, KvConformance): ...
