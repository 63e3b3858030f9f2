"""Workers that live and die: memory and Redis keep the contract."""

from __future__ import annotations

from aiopatterns.testing.conformance import WorkersConformance
from tests.testing.homes import OnMemory, OnRedis


class TestMemory(OnMemory, WorkersConformance): ...


class TestRedis(OnRedis, WorkersConformance): ...
