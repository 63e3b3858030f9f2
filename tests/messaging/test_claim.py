"""A claim and what is to become of it later."""

from __future__ import annotations

from aiopatterns.core.clock import sleep
from aiopatterns.messaging import Message
from aiopatterns.messaging.claim import Claim


def claim() -> Claim:
    return Claim("1-0", Message(type="t"), 2)


def test_it_begins_with_the_attempt_of_its_delivery():
    made = claim()
    assert (made.attempt, made.begun, made.lost, made.key, made.rests) == (
        2,
        False,
        False,
        None,
        False,
    )


async def test_what_is_to_be_done_later_is_done_once():
    made, calls = claim(), list[int]()
    made.later(0.001, lambda: calls.append(1))
    assert made.rests
    await sleep(0.02)
    assert calls == [1]
    assert not made.rests
    made.hurry()
    assert calls == [1]


async def test_it_is_done_at_once_or_never():
    made, calls = claim(), list[int]()
    made.later(60, lambda: calls.append(1))
    made.hurry()
    assert calls == [1]
    made.later(0.001, lambda: calls.append(2))
    made.disarm()
    made.disarm()
    await sleep(0.02)
    assert calls == [1]
