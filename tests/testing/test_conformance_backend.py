"""The life of a backend and each of its calls: memory and Redis keep the contract."""

from __future__ import annotations

from aiopatterns.testing.conformance import BackendConformance
from tests.testing.homes import OnMemory, OnRedis


class TestMemory(OnMemory, BackendConformance): ...


class TestRedis(OnRedis, BackendConformance): ...
