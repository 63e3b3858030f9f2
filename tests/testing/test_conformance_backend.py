"""The life of a backend and each of its calls: memory and Redis keep the contract."""

from __future__ import annotations

import pytest

from aiopatterns.testing.conformance import BackendConformance
from aiopatterns.testing.conformance_backend import _refused
from tests.testing.homes import OnMemory, OnRedis


class TestMemory(OnMemory, BackendConformance): ...


class TestRedis(OnRedis, BackendConformance): ...


async def test_a_closed_backend_that_answers_fails():
    async def answer() -> int:
        return 42

    with pytest.raises(AssertionError, match="get answered 42 though the backend is closed"):
        await _refused("get", answer)
