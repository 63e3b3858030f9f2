"""The counters and the records made of them."""

from __future__ import annotations

import dataclasses

import pytest

from aiopatterns.flow.ledger import Ledger, PoolStatistics, WorkerStatistics


def test_a_snapshot_is_frozen_and_complete():
    ledger = Ledger()
    ledger.accepted, ledger.done, ledger.running = 3, 2, 1
    for seconds in (0.1, 0.2, 0.3):
        ledger.seconds.record(seconds)
    worker = WorkerStatistics(number=0, state="idle", attempts=2, failed=0, busy=0.3)
    found = ledger.snapshot(4, iter([worker]))
    assert (found.accepted, found.done, found.running, found.queued) == (3, 2, 1, 0)
    assert (found.workers, found.limit, found.per_worker) == (1, 4, (worker,))
    assert found.p50 == pytest.approx(0.2, rel=0.02)
    assert found.p50 is not None
    assert found.p95 is not None
    assert found.p99 is not None
    assert found.p50 <= found.p95 <= found.p99
    with pytest.raises(dataclasses.FrozenInstanceError):
        object.__getattribute__(found, "__setattr__")("done", 9)


def test_before_the_first_item_there_is_no_latency():
    found = Ledger().snapshot(1, ())
    assert found == PoolStatistics(limit=1)
    assert found.p50 is found.p95 is found.p99 is None


def test_the_fields_of_the_contract():
    names = [field.name for field in dataclasses.fields(PoolStatistics)]
    for name in [
        "accepted",
        "done",
        "failed",
        "cancelled",
        "dropped",
        "queued",
        "running",
        "workers",
        "p50",
        "p95",
        "p99",
        "per_worker",
    ]:
        assert name in names
