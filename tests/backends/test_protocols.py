from __future__ import annotations

import pickle

from hypothesis import given
from hypothesis import strategies as st

from aiopatterns.backends import open_backend
from aiopatterns.backends.protocols import (
    DELETE,
    Backend,
    Claimed,
    Delete,
    Directory,
    Entry,
    GroupTurn,
    Kv,
    Lease,
    Limiter,
    Log,
    Members,
    Notice,
    PendingEntry,
    PubSub,
)


def test_what_is_opened_speaks_the_protocols():
    """What the type checker reads here is the test; nothing is connected."""
    for url in ("memory://", "redis://localhost"):
        backend: Backend = open_backend(url)
        kv: Kv = backend.kv
        pubsub: PubSub = backend.pubsub
        log: Log = backend.log("x")
        lease: Lease = backend.lease("x")
        limiter: Limiter = backend.limiter("x")
        directory: Directory = backend.directory("x")
        assert all((kv, pubsub, log, lease, limiter, directory))


def test_delete_is_one_thing_also_after_a_journey():
    assert DELETE is Delete.DELETE
    assert pickle.loads(pickle.dumps(DELETE)) is DELETE


def test_ids_are_ordered_by_their_numbers():
    ids = ["9-0", "10-0", "9-10", "9-9", "7"]
    entries = sorted((Entry(each, b"") for each in ids), key=lambda each: each.sort_key)
    assert [each.id for each in entries] == ["7", "9-0", "9-9", "9-10", "10-0"]


@given(st.integers(0, 2**64 - 1), st.integers(0, 2**64 - 1))
def test_a_sort_key_is_what_the_id_says(first, second):
    assert Entry(f"{first}-{second}", b"").sort_key == (first, second)


def test_an_empty_turn_asks_for_nothing():
    turn = GroupTurn()
    assert (turn.limit, turn.delete, turn.idle) == (0, False, 30.0)
    assert not any((turn.acks, turn.releases, turn.retries, turn.buried, turn.renews))


def test_records_are_tuples():
    assert Notice("c", b"d") == ("c", b"d")
    assert Members(3, {"a": b""}) == (3, {"a": b""})
    assert Claimed("1-0", b"", 2) == ("1-0", b"", 2)
    assert PendingEntry("1-0", "c", 0.5, 2) == ("1-0", "c", 0.5, 2)
