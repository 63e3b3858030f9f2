from __future__ import annotations

from aiopatterns.backends.redis.statistics import Tally
from tests.backends.redis.fakeserver import open_backend


def test_the_counters_begin_at_nothing():
    tally = Tally()
    assert (tally.commands, tally.round_trips, tally.retries, tally.reconnects) == (0, 0, 0, 0)


def test_a_backend_that_was_never_opened_has_done_nothing():
    record = open_backend("redis://:p@h").statistics()
    assert record.url == "redis://:***@h"
    assert (record.users, record.commands, record.round_trips) == (0, 0, 0)
    assert (record.retries, record.reconnects, record.in_flight) == (0, 0, 0)
