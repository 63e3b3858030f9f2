"""Directories: memory and Redis keep the contract."""

from __future__ import annotations

from aiopatterns.testing.conformance import DirectoryConformance
from tests.testing.homes import OnMemory, OnRedis


class TestMemory(OnMemory, DirectoryConformance): ...


class TestRedis(OnRedis, DirectoryConformance): ...
