"""Administration of a queue: memory and Redis keep the contract."""

from __future__ import annotations

from aiopatterns.testing.conformance import PagesConformance
from tests.testing.homes import OnMemory, OnRedis


class TestMemory(OnMemory, PagesConformance): ...


class TestRedis(OnRedis, PagesConformance): ...
