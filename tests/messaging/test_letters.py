"""Dead letters as users see them."""

from __future__ import annotations

from aiopatterns.backends.records import Claimed
from aiopatterns.messaging import Envelopes, Message
from aiopatterns.messaging.letters import read_letter, reason_of

ENVELOPES = Envelopes()


def test_a_letter_has_its_message():
    message = Message(type="t", payload=[1])
    data = ENVELOPES.encode(message)
    letter = read_letter(Claimed("1-0", data, 3), "é".encode(), ENVELOPES)
    assert (letter.id, letter.message, letter.attempts, letter.error) == ("1-0", message, 3, "é")
    assert letter.data == data


def test_one_that_cannot_be_read_has_its_bytes():
    letter = read_letter(Claimed("1-0", b"\xff", 1), b"\xff", ENVELOPES)
    assert (letter.message, letter.data, letter.error) == (None, b"\xff", "�")


def test_a_reason_is_short():
    assert reason_of(ValueError("no")) == "ValueError: no"
    assert len(reason_of(ValueError("x" * 10_000))) == 2_000
