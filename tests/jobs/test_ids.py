"""Ids: different from one another, ordered by time, and they tell their partition."""

from __future__ import annotations

import pytest

from aiopatterns.jobs.ids import Ids, partition_of


def test_ids_are_16_bytes_as_text_and_grow():
    ids = Ids(1)
    first = ids.at(1_700_000_000.0)
    made = [first(0), first(0), ids.at(1_700_000_000.001)(0), ids.at(1_800_000_000.0)(0)]
    assert made == sorted(set(made))
    assert all(len(bytes.fromhex(each)) == 16 for each in made)
    assert int(made[0][:12], 16) == 1_700_000_000_000


def test_two_openings_make_different_ids():
    made = {Ids(1).at(1_700_000_000.0)(0) for _ in range(1_000)}
    assert len(made) == 1_000


def test_an_id_tells_its_partition():
    ids = Ids(12).at(1_700_000_000.0)
    for partition in range(12):
        made = ids(partition)
        assert made.endswith(f"-{partition}")
        assert partition_of(made, 12) == partition
        assert partition_of(made, partition) == (None if partition != 1 else 0)


@pytest.mark.parametrize(
    "job_id", ["mine", "order-1", "a" * 31 + "-1", "g" * 32 + "-1", "a" * 32, "a" * 32 + "-x", "-1"]
)
def test_an_id_of_the_users_own_tells_none(job_id):
    assert partition_of(job_id, 4) is None
    assert partition_of(job_id, 1) == 0
