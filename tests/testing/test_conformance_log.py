"""Logs: memory and Redis keep the contract."""

from __future__ import annotations

from aiopatterns.testing.conformance import LogConformance
from tests.testing.homes import OnMemory, OnRedis


class TestMemory(OnMemory, LogConformance): ...


class TestRedis(OnRedis, LogConformance): ...
