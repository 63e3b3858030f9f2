"""Tests that run in several places have a parameter for it; this says on which loops."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

# Loops make no difference to what is on the disk, so each of these runs on one; all combinations of
# the table of crash points are in tests/stress/test_two_phase.py.
ON_ONE_LOOP = frozenset(
    (
        "test_crash_table.py",
        "test_decisions.py",
        "test_sqlitebranch.py",
        "test_sqlitelastresource.py",
        "test_sqliteparticipant.py",
        "test_sqllogs.py",
    )
)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take out what is marked real, by a parameter, on the simulated loop: that has no sockets.

    The loops of a test are chosen before the marks of its parameters are known.
    """
    unreal = {each for each in items if "[sim-" in each.name and each.get_closest_marker("real")}
    unwanted = unreal | _repeated([each for each in items if each not in unreal])
    if unwanted:
        config.hook.pytest_deselected(items=[*unwanted])
        items[:] = [item for item in items if item not in unwanted]


def _repeated(items: list[pytest.Item]) -> set[pytest.Item]:
    """Return all but the first loop of each test that needs only one."""
    alike: dict[str, list[pytest.Item]] = {}
    for each in items:
        if each.path.name in ON_ONE_LOOP:
            alike.setdefault(re.sub(r"\[(asyncio|uvloop|sim)\b", "[", each.nodeid), []).append(each)
    return {each for same in alike.values() for each in same[1:]}
