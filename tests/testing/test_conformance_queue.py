"""Enqueueing and claiming: memory and Redis keep the contract."""

from __future__ import annotations

from aiopatterns.testing.conformance import QueueConformance
from tests.testing.homes import OnMemory, OnRedis


class TestMemory(OnMemory, QueueConformance): ...


class TestRedis(OnRedis, QueueConformance): ...
