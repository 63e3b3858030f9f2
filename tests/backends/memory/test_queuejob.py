"""What is known of a job and of a worker."""

from __future__ import annotations

from aiopatterns.backends.memory.queuejob import Holder, Job, Place
from aiopatterns.backends.queue import NewJob


def test_places_refine_states():
    assert [(place.name, place.state) for place in Place] == [
        ("LANE", "queued"),
        ("PARK", "queued"),
        ("SUSPECT", "queued"),
        ("DUE", "scheduled"),
        ("WAIT", "waiting"),
        ("RUN", "running"),
    ]


def test_a_worker_is_alone_with_one_suspect():
    holder = Holder("w")
    assert not holder.alone
    one, other = Job(NewJob("a", b""), 0), Job(NewJob("b", b""), 0)
    holder.held = {"a": one}
    assert not holder.alone
    one.since = 0
    assert holder.alone
    holder.held["b"] = other
    assert not holder.alone
