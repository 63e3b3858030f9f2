"""Events of peers: their names, which are public."""

from __future__ import annotations

import pytest

from aiopatterns.cluster import (
    PeerChanged,
    PeerHandlerFailed,
    PeerJoined,
    PeerJoinFailed,
    PeerRejected,
    PeerStalled,
)


@pytest.mark.parametrize(
    ("kind", "name", "level"),
    [
        (PeerJoined, "joined", "info"),
        (PeerJoinFailed, "join_failed", "warning"),
        (PeerChanged, "changed", "info"),
        (PeerStalled, "stalled", "warning"),
        (PeerRejected, "rejected", "warning"),
        (PeerHandlerFailed, "handler_failed", "error"),
    ],
)
def test_names_and_levels(kind, name, level):
    assert (kind.name, kind.level) == (f"aiopatterns.peer.{name}", level)
