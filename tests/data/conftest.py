"""Tests that run in several places have a parameter for it; this says on which loops."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

# Loops make no difference to what is on the disk, so each of these runs on one: the one named here,
# or another if there is no such. All combinations of the table of crash points are in
# tests/stress/test_two_phase.py.
ON_ONE_LOOP = {
    "test_changelog.py": "sim",
    "test_crash_table.py": "sim",
    "test_decisions.py": "asyncio",
    "test_sqlitebranch.py": "asyncio",
    "test_sqlitelastresource.py": "asyncio",
    "test_sqliteparticipant.py": "asyncio",
    "test_sqllogs.py": "asyncio",
    "test_sqlstore.py": "asyncio",
    "test_syncstore.py": "sim",
}
LOOP = re.compile(r"\[(asyncio|uvloop|sim)\b")


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
    """Return all but one loop of each test that needs only one."""
    alike: dict[str, dict[str, pytest.Item]] = {}
    for each in items:
        found = LOOP.search(each.nodeid)
        if found is not None and each.path.name in ON_ONE_LOOP:
            alike.setdefault(LOOP.sub("[", each.nodeid), {})[found[1]] = each
    unwanted: set[pytest.Item] = set()
    for same in alike.values():
        wanted = ON_ONE_LOOP[next(iter(same.values())).path.name]
        kept = wanted if wanted in same else min(same)
        unwanted.update(each for loop, each in same.items() if loop != kept)
    return unwanted
