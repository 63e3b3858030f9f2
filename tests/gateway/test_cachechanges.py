"""Changes: what came before one is known, also when there were too many to remember."""

from __future__ import annotations

from aiopatterns.gateway.cachechanges import Changes


def address(n: int) -> tuple[str, bytes, bytes, bytes]:
    return "http", b"shop", b"/%d" % n, b""


def test_what_was_asked_for_before_a_change_is_known():
    changes = Changes()
    assert not changes.since(address(1), 0.0)
    changes.note(address(1), 5.0)
    assert changes.since(address(1), 4.9)
    assert changes.since(address(1), 5.0), "nobody knows which was first"
    assert not changes.since(address(1), 5.1)
    assert not changes.since(address(2), 0.0)
    changes.note(address(1), 7.0)
    assert changes.since(address(1), 6.0)


def test_too_many_changes_make_more_of_them_and_never_fewer():
    changes = Changes(2)
    for n in range(4):
        changes.note(address(n), float(n))
    assert changes.since(address(0), 0.0)
    assert changes.since(address(9), 1.0), "forgotten, so it may have been changed"
    assert not changes.since(address(9), 1.5)
    assert changes.since(address(2), 1.5)
    assert not changes.since(address(2), 2.5)
