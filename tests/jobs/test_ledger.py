from __future__ import annotations

from dataclasses import asdict

from aiopatterns.core.codec import MSGPACK
from aiopatterns.jobs.ledger import Ledger, add_up


def test_nothing_yet():
    figures = add_up(())
    assert (figures.processed, figures.p50, figures.queues) == (0, None, {})


def test_figures_of_several_queues_add_up():
    one, two = Ledger("one"), Ledger("two")
    for number, name in enumerate(
        [
            "processed",
            "failed",
            "retried",
            "cancelled",
            "lost",
            "stale",
            "running",
            "steps",
            "outages",
        ]
    ):
        setattr(one, name, number + 1)
        setattr(two, name, 10)
    one.seconds.record(1.0)
    two.seconds.record(3.0)
    figures = add_up([one, two])
    assert (figures.processed, figures.failed, figures.retried) == (11, 12, 13)
    assert (figures.running, figures.steps) == (17, 18)
    assert figures.p50 is not None
    assert abs(figures.p50 - 1.0) < 0.02
    assert asdict(figures.queues["one"]) == {
        "processed": 1, "failed": 2, "retried": 3, "cancelled": 4, "lost": 5, "stale": 6,
        "running": 7, "steps": 8, "outages": 9,
    }  # fmt: skip
    assert MSGPACK.decode(MSGPACK.encode(figures))["queues"]["two"]["lost"] == 10
