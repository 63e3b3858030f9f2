"""Where jobs are kept: every test that asks for ``backend`` runs in memory and on Redis."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from aiopatterns.backends import open_backend

if TYPE_CHECKING:
    from aiopatterns.backends.protocols import Backend


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take out the tests on Redis on the simulated loop, which has no sockets."""
    unreal = {item for item in items if _is_simulated(item) and item.get_closest_marker("real")}
    if unreal:
        config.hook.pytest_deselected(items=list(unreal))
        items[:] = [item for item in items if item not in unreal]


def _is_simulated(item: pytest.Item) -> bool:
    # The loops of a test are chosen before the marks of its parameters are known.
    return "[sim-redis" in item.name


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
