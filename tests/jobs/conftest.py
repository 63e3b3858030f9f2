"""Where jobs are kept: every test that asks for ``backend`` runs in memory and on Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from aiopatterns.backends import open_backend

if TYPE_CHECKING:
    from aiopatterns.backends.protocols import Backend


@pytest.fixture(params=["memory", pytest.param("redis", marks=pytest.mark.real)])
def backend_url(request: pytest.FixtureRequest) -> str:
    """The URL of an empty backend; in memory each queue that is made of it has one of its own."""
    if request.param == "memory":
        return "memory://"
    found: str = request.getfixturevalue("redis_url")
    return found


@pytest.fixture
def backend(backend_url: str) -> Backend:
    """An empty backend, to be shared by queues."""
    return open_backend(backend_url)
