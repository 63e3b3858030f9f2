"""Terms of one call: what is refused, and where it goes."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone
from types import SimpleNamespace
from typing import Any

import pytest

from aiopatterns.core.clock import monotonic
from aiopatterns.core.codec import Header, unpack
from aiopatterns.core.context import bind_correlation, bind_deadline
from aiopatterns.jobs.context import enter_hops, leave_hops
from aiopatterns.jobs.desk import Desk
from aiopatterns.jobs.envelope import Envelopes
from aiopatterns.jobs.handle import Handle, Origin
from aiopatterns.jobs.keys import place
from aiopatterns.jobs.terms import PLAIN, Stamp, Terms, terms_of

NAIVE = datetime(2024, 1, 1, tzinfo=UTC).replace(tzinfo=None)
DEFAULTS = {"delay": 0.0, "at": None, "priority": None, "after": (), "id": None}


def handle(job_id="p", *, queue="mail", partition=0):
    desk: Any = None
    return Handle(Origin(queue, Envelopes(), lambda: desk), job_id, partition=partition)


def made(partitions=1, **given):
    queue: Any = SimpleNamespace(name="mail", partitions=partitions)
    return terms_of(queue, **{**DEFAULTS, **given})


def stamp(partitions=1):
    stores: Any = (None,) * partitions
    return Stamp(Desk(stores, (), 1_700_000_000.0), Envelopes())


def test_defaults_are_plain():
    assert made() == PLAIN


def test_values_are_taken():
    at = datetime(2024, 1, 1, tzinfo=timezone(timedelta(hours=2)))
    assert made(at=at).at == at.timestamp() == datetime(2023, 12, 31, 22, tzinfo=UTC).timestamp()
    assert made(delay=5, priority=9, id="mine") == Terms(delay=5, priority=9, id="mine")
    assert made(after=[handle("a"), "b"]) == Terms(after=("a", "b"), partition=0)


@pytest.mark.promise("jobs-bad-input")
@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ({"delay": -1}, ValueError, "delay must be a finite number >= 0, not -1"),
        ({"delay": "1"}, TypeError, "delay must be a finite number >= 0"),
        ({"delay": 1, "at": datetime.now(UTC)}, ValueError, "delay must be 0 if at is given"),
        ({"at": NAIVE}, ValueError, "at must have a time zone"),
        ({"at": 17.5}, TypeError, "at must be a datetime with a time zone, not 17.5"),
        ({"priority": 10}, ValueError, "priority must be a whole number from 0 to 9"),
        ({"id": ""}, ValueError, "id must be a non-empty string"),
        ({"id": 7}, TypeError, "id must be a non-empty string, not 7"),
        ({"id": "x" * 1_025}, ValueError, "id must be at most 1024 bytes"),
        ({"after": "abc"}, TypeError, "after must be a collection of handles or ids, not the sin"),
        ({"after": handle()}, TypeError, "after must be a collection of handles or ids"),
        ({"after": [3]}, TypeError, "after must be a non-empty string, not 3"),
        ({"after": [""]}, ValueError, "after must be a non-empty string"),
        ({"after": [handle(queue="other")]}, ValueError, "after must name jobs of queue 'mail', n"),
    ],
)
def test_bad_input(given, error, message):
    with pytest.raises(error, match=message):
        made(**given)


def test_after_in_partitions():
    assert made(3, after=[handle(partition=2), "0" * 32 + "-2"]).partition == 2
    assert made(3, after=[handle("0" * 32 + "-1", partition=None)]).partition == 1
    with pytest.raises(ValueError, match=r"after must name jobs of one partition, not of \[0, 2\]"):
        made(3, after=[handle(partition=2), handle(partition=0)])
    with pytest.raises(ValueError, match="'mine' is an id of your own, and the queue has 3 partit"):
        made(3, after=["mine"])


def test_one_partition_takes_all():
    assert stamp().place(Terms(id="x", partition=0), "route") == 0


def test_who_says_nothing_is_placed_in_turn():
    one = stamp(3)
    assert [one.place(PLAIN, None) for _ in range(5)] == [0, 1, 2, 0, 1]


def test_a_key_an_id_and_parents_decide():
    one = stamp(5)
    assert one.place(PLAIN, "key") == one.place(Terms(id="x"), "key") == place("key", 5)
    assert one.place(Terms(id="mine"), None) == place("mine", 5)
    assert one.place(Terms(partition=3), None) == 3
    assert one.place(Terms(partition=3, id="mine"), None) == 3
    assert one.place(Terms(partition=place("key", 5)), "key") == place("key", 5)
    with pytest.raises(ValueError, match="after names jobs of partition"):
        one.place(Terms(partition=(place("key", 5) + 1) % 5), "key")


def header():
    body = stamp().encode("f", (), {})
    return unpack(body[1:])[0]


def test_the_header_is_empty_where_nothing_is_bound():
    assert header() == Header()


def test_the_header_tells_what_is_bound():
    with bind_correlation("req"), bind_deadline(monotonic() + 10):
        token = enter_hops(3)
        found = header()
        leave_hops(token)
    assert (found.correlation_id, found.hops) == ("req", 4)
    assert found.remaining == pytest.approx(10, abs=1)
    assert found.sent_at == pytest.approx(1_700_000_000, abs=1)
