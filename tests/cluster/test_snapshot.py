"""Snapshots are values."""

from __future__ import annotations

from dataclasses import FrozenInstanceError
from typing import Any

import pytest

from aiopatterns.cluster import ServiceInstance, Snapshot


def test_an_empty_snapshot():
    snapshot = Snapshot()
    assert (snapshot.instances, snapshot.stale, snapshot.revision, snapshot.age) == ((), (), 0, 0.0)
    assert dict(snapshot.states) == {}


def test_a_snapshot_is_hashed_compared_and_frozen():
    instance = ServiceInstance("users", "localhost", 80, id="a")
    one, two = Snapshot((instance,), revision=7), Snapshot((instance,), revision=7)
    assert one == two
    assert hash(one) == hash(two)
    assert one != Snapshot((), (instance,), revision=7)
    frozen: Any = one
    with pytest.raises(FrozenInstanceError):
        frozen.age = 1.0
    with pytest.raises(TypeError):
        frozen.states["a"] = "ready"
