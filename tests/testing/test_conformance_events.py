"""Wake-ups and events of a queue: memory and Redis keep the contract."""

from __future__ import annotations

from aiopatterns.testing.conformance import EventsConformance
from tests.testing.homes import OnMemory, OnRedis


class TestMemory(OnMemory, EventsConformance): ...


class TestRedis(OnRedis, EventsConformance): ...
