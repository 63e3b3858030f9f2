from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest

from aiopatterns.backends.statistics import BackendStatistics


def test_the_record_is_frozen_and_starts_at_nothing():
    record = BackendStatistics(url="memory://", users=1)
    assert (record.commands, record.round_trips, record.retries) == (0, 0, 0)
    assert (record.reconnects, record.in_flight) == (0, 0)
    with pytest.raises(FrozenInstanceError):
        setattr(record, "users", 2)
