"""Live messages: memory and Redis keep the contract."""

from __future__ import annotations

from aiopatterns.testing.conformance import PubSubConformance
from tests.testing.homes import OnMemory, OnRedis


class TestMemory(OnMemory, PubSubConformance): ...


class TestRedis(OnRedis, PubSubConformance): ...
