"""Jobs, turns and answers on the wire and in the store."""

from __future__ import annotations

import pytest

from aiopatterns.backends.queue import (
    Bucket,
    ClaimedJob,
    Enqueued,
    NewJob,
    Outcome,
    Settled,
    Turn,
    UniqueKey,
)
from aiopatterns.backends.redis import queuewire
from aiopatterns.core.rate import Rate

FULL = NewJob(
    "a",
    b"body",
    priority=7,
    attempts=3,
    keep=60.0,
    after=("b", "c"),
    unique=UniqueKey("k", "debounce", 1.5),
    limits=(Bucket("b", Rate(2, per=1), 4), Bucket("c", None, 1)),
)


def test_a_plain_job_is_a_header_and_its_body():
    value = queuewire.pack(NewJob("a", b"body", 7, attempts=3, keep=60.0))
    assert value == b"\x00\x07\x00\x00\x00\x03\x00\x00\x00\x00\x00\x00\xea\x60body"
    assert queuewire.HEADER == 14


def test_the_wire_format_of_a_job_with_everything_stays():
    assert queuewire.pack(FULL).hex() == (
        "070700000003000000000000ea60"  # flags, priority, attempts, keep
        "0000003b"  # size of the extras
        "93"
        "92a162a163"
        "93a16ba162cd05dc"
        "9294a16204cb407f400000000000cb407f400000000000"
        "94a16301cb0000000000000000cb0000000000000000"
        "626f6479"
    )


@pytest.mark.parametrize("job", [FULL, NewJob("a", b""), NewJob("a", b"\x00\xff", after=("b",))])
def test_the_body_is_found_again(job):
    flat = [b"a", queuewire.pack(job), 0, 0]
    assert queuewire.held(flat) == [ClaimedJob("a", job.body, 1)]


def test_enqueues():
    plain = [NewJob("a", b"1"), NewJob("b", b"2", 3)]
    words = queuewire.enqueue_words("ch", plain, plain=True)
    assert words == ["ch", "1", "a", queuewire.pack(plain[0]), "b", queuewire.pack(plain[1])]
    later = [NewJob("a", b"1", delay=0.5), NewJob("b", b"2", at=2.0)]
    words = queuewire.enqueue_words("ch", later, plain=False)
    assert words[:2] == ["ch", "0"]
    assert (words[4:6], words[8:10]) == ([500, ""], [0, 2_000])
    assert queuewire.enqueued(1, plain) == [Enqueued("a", True), Enqueued("b", True)]
    assert queuewire.enqueued([b"", b"x"], plain) == [Enqueued("a", True), Enqueued("x", False)]


def test_a_turn():
    settled = [
        Settled("a", "done", b"r"),
        Settled("b", "retry", b"e", 1.5, counted=False),
        Settled("c", "dead", b"e"),
        Settled("d", "cancelled", counted=False),
        Settled("e", "release"),
    ]
    words = queuewire.turn_words("ch", Turn("w", 7, 15.0, settled, 3, {"f": 1}, True))
    assert words == [
        *("ch", "w", 7, 15_000, 3, "1", 5),
        *("a", "d", b"r"),
        *("b", "R1500", b"e"),
        *("c", "x", b"e"),
        *("d", "C", b""),
        *("e", "l", b""),
        *("f", "1.0"),
    ]


def test_an_answer():
    value, full = queuewire.pack(NewJob("a", b"1")), queuewire.pack(FULL)
    reply = [[b"a", value, b"b", full], [b"2", None], [b"s"], [b"c"], 31, 1_500, 1_000, -1]
    turned = queuewire.turned(reply)
    assert turned.claimed == [ClaimedJob("a", b"1", 3, True), ClaimedJob("b", b"body", 1, True)]
    assert (turned.stale, turned.cancels) == (["s"], ["c"])
    assert turned[3:] == (True, True, True, True, 1.5, 1.0)
    assert queuewire.next_end(reply) is None
    reply = [[b"a", value, b"b", full], [], [], [], 0, -1, 0, 250]
    turned = queuewire.turned(reply)
    assert turned.claimed == [ClaimedJob("a", b"1", 1), ClaimedJob("b", b"body", 1)]
    assert turned[3:] == (False, False, False, False, None, 0.0)
    assert queuewire.next_end(reply) == 0.25


def test_outcomes_and_letters():
    assert queuewire.outcome(b"d3:a:b") == Outcome("done", b"a:b", 3)
    assert queuewire.outcome(b"c0:") == Outcome("cancelled", b"", 0)
    letter = b"2 5:w:h y" + queuewire.pack(NewJob("a", b"body"))
    assert queuewire.outcome(b"x" + letter) == Outcome("dead", b"w:h y", 2)
    (stored,) = queuewire.page("dead", [b"a", letter, 0, 1_500])
    assert stored == ("a", b"body", "dead", 2, b"w:h y", 1.5)
    (stored,) = queuewire.page("queued", [b"a", queuewire.pack(NewJob("a", b"x")), 4, 0])
    assert stored == ("a", b"x", "queued", 4, b"", 0.0)
