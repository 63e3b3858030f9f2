"""What a consumer has to say."""

from __future__ import annotations

from aiopatterns.backends.records import GroupTurn
from aiopatterns.messaging.talk import Talk


def test_all_that_was_said_is_in_the_turn():
    talk = Talk()
    assert not talk
    assert talk.entries() == set()
    talk.acks.append("1-0")
    talk.releases.append("2-0")
    talk.retries["3-0"] = 0.5
    talk.buried["4-0"] = b"why"
    assert talk
    assert talk.entries() == {"1-0", "2-0", "3-0", "4-0"}
    said = talk.turn(["5-0"], 7, 30.0)
    assert said == GroupTurn(["1-0"], ["2-0"], {"3-0": 0.5}, {"4-0": b"why"}, ["5-0"], 7, 30.0)
