"""What a group tells of itself: memory and Redis keep the contract."""

from __future__ import annotations

from aiopatterns.testing.conformance import PendingConformance
from tests.testing.homes import OnMemory, OnRedis


class TestMemory(OnMemory, PendingConformance): ...


class TestRedis(OnRedis, PendingConformance): ...
