from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from tests.backends.redis.fakeserver import open_backend


def test_the_record_is_frozen_and_starts_at_nothing():
    record = open_backend("redis://:p@h").statistics()
    assert record.url == "redis://:***@h"
    assert (record.users, record.commands, record.round_trips) == (0, 0, 0)
    assert (record.retries, record.reconnects, record.in_flight) == (0, 0, 0)
    with pytest.raises(FrozenInstanceError):
        setattr(record, "users", 1)
