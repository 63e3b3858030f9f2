"""Tests that run in several places have a parameter for it; this keeps the real ones real."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take out what is marked real, by a parameter, on the simulated loop: that has no sockets.

    The loops of a test are chosen before the marks of its parameters are known.
    """
    unreal = [each for each in items if "[sim-" in each.name and each.get_closest_marker("real")]
    if unreal:
        config.hook.pytest_deselected(items=unreal)
        items[:] = [item for item in items if item not in unreal]
