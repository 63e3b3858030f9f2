"""Dead letters as users see them, also those that nobody can read."""

from __future__ import annotations

from aiopatterns.backends.queue import StoredJob
from aiopatterns.core.codec import Header
from aiopatterns.jobs.deadletter import DeadLetter, read_letter
from aiopatterns.jobs.envelope import Envelope, Envelopes, ErrorRecord

ENVELOPES = Envelopes()


def stored(body, error):
    return StoredJob("id", body, "dead", 3, error, 17.5)


def test_a_letter_tells_the_call_and_the_error():
    body = ENVELOPES.encode(Envelope("f", [1], {"a": 2}, 0.0, Header()))
    record = ErrorRecord("ValueError", "no", "at")
    found = read_letter(stored(body, ENVELOPES.encode_error(record)), ENVELOPES)
    assert found == DeadLetter("id", "f", [1], {"a": 2}, 3, record, 17.5)


def test_a_letter_that_nobody_can_read():
    found = read_letter(stored(b"nonsense", b""), ENVELOPES)
    assert (found.name, found.args, found.kwargs) == ("", [], {})
    assert found.error.type == "WorkerCrashedError"
