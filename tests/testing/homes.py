"""Where the conformance suites run: memory on all three loops, a real Redis on two."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from aiopatterns.backends import open_backend

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from aiopatterns.backends.protocols import Backend

__all__ = ["OnMemory", "OnRedis"]


class OnMemory:
    """Brings an empty backend in memory."""

    unit = 0.02

    @pytest.fixture
    async def backend(self) -> AsyncIterator[Backend]:
        async with open_backend("memory://") as backend:
            yield backend


@pytest.mark.real
@pytest.mark.leaves("*")  # what the tests put there for ever
class OnRedis:
    """Brings an empty backend on the server of this test process."""

    unit = 0.03

    @pytest.fixture
    async def backend(self, redis_url: str) -> AsyncIterator[Backend]:
        async with open_backend(redis_url) as backend:
            yield backend
