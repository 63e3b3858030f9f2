"""Tests that run in memory and on Redis have a parameter for it; this keeps Redis real."""

from __future__ import annotations

import pytest


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
def place(request: pytest.FixtureRequest) -> str:
    """The URL of a backend that is empty, in memory and on Redis."""
    return "memory://" if request.param == "memory" else request.getfixturevalue("redis_url")
