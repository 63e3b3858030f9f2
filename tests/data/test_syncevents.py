"""Events of synchronisation: told once each, and never by a dry run."""

from __future__ import annotations

import pytest

from aiopatterns.data import LastWriteWins, Merge
from aiopatterns.data.memorystore import MemorySyncStore
from aiopatterns.data.sync import Synchronizer
from aiopatterns.data.syncevents import SyncConflictFound, SyncQuarantined, SyncStartedOver
from aiopatterns.testing import capture_events
from tests.data.syncplaces import filled


async def test_a_conflict_is_told_once():
    left, right = await filled("left", k=1), await filled("right", k=2)
    sync = Synchronizer(left, right, strategy=LastWriteWins())
    with capture_events() as events:
        await sync.run(dry_run=True)
        assert events == []
        await sync.run()
        await sync.run()
    assert events == [SyncConflictFound("right", "left", "k")]


async def test_quarantine_is_told_once():
    def refuse(*_: object) -> object:
        raise RuntimeError("cannot")

    left, right = await filled("left", k=1), await filled("right", k=2)
    sync = Synchronizer(left, right, strategy=Merge(refuse))
    with capture_events() as events:
        report = await sync.run()
        await sync.run()
    assert events == [
        SyncQuarantined("right", "left", "k", "RuntimeError: cannot"),
        SyncQuarantined("left", "right", "k", "RuntimeError: cannot"),
    ]
    assert [each.key for each in report.quarantined] == ["k", "k"]


async def test_a_conflict_that_waited_in_quarantine_is_told_when_it_is_decided():
    def refuse(*_: object) -> object:
        raise RuntimeError("cannot")

    left, right = await filled("left", k=1), await filled("right", k=2)
    await Synchronizer(left, right, strategy=Merge(refuse)).run("pull")
    with capture_events() as events:
        report = await Synchronizer(left, right, strategy=LastWriteWins()).run("pull")
    assert events == [SyncConflictFound("right", "left", "k")]
    assert [each.key for each in report.conflicts] == ["k"]


async def test_a_start_from_nothing_is_told():
    left, right = await filled("left", k=1), MemorySyncStore("right")
    await left.delete("k")
    await left.purge()
    sync = Synchronizer(left, right, strategy=LastWriteWins())
    with capture_events() as events:
        await sync.run("push", dry_run=True)
        await sync.run("push")
        await sync.run("push")
    assert events == [SyncStartedOver("left", "right", 0)]


@pytest.mark.parametrize("kind", [SyncConflictFound, SyncQuarantined, SyncStartedOver])
def test_names_are_those_of_the_pattern(kind):
    assert kind.name.startswith("aiopatterns.sync.")
