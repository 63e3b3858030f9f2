"""Unique keys: memory and Redis keep the contract."""

from __future__ import annotations

from aiopatterns.testing.conformance import UniqueConformance
from tests.testing.homes import OnMemory, OnRedis


class TestMemory(OnMemory, UniqueConformance): ...


class TestRedis(OnRedis, UniqueConformance): ...
