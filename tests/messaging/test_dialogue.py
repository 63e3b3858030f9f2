"""A consumer's dialogue with a log: what is done meanwhile, and what was not answered."""

from __future__ import annotations

from typing import Any

import pytest

from aiopatterns.backends import open_backend
from aiopatterns.backends.protocols import Log
from aiopatterns.backends.records import GroupTurn
from aiopatterns.core.clock import sleep
from aiopatterns.core.errors import BackendUnavailableError
from aiopatterns.messaging.dialogue import Dialogue


class Deaf:
    """A log that does what it is told, and loses its answers while it is told to."""

    def __init__(self, log: Log) -> None:
        self.log = log
        self.loses = False
        self.hides = False

    async def turn(self, *args: Any) -> Any:
        await sleep(0.001)
        answer = await self.log.turn(*args)
        if self.loses:
            raise BackendUnavailableError("the answer was lost")
        return answer

    async def held(self, *args: Any) -> Any:
        if self.hides:
            raise BackendUnavailableError("nobody knows what is held")
        return await self.log.held(*args)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.log, name)


async def filled(log: Log) -> Log:
    await log.append_many([b"0", b"1", b"2"])
    await log.create_group("g")
    return log


async def test_what_is_to_be_done_meanwhile_is_done_before_the_answer():
    async with open_backend("memory://") as backend:
        log: Any = Deaf(await filled(backend.log("s")))
        dialogue, calls = Dialogue(log, "g", "c"), list[bool]()
        answer = await dialogue.say(
            GroupTurn(limit=2), meanwhile=lambda: calls.append(dialogue.unclear)
        )
        assert calls == [True]
        assert [each.payload for each in answer.claimed] == [b"0", b"1"]
        assert not dialogue.unclear


async def test_it_is_done_as_well_if_the_log_answers_at_once():
    async with open_backend("memory://") as backend:
        dialogue, calls = Dialogue(await filled(backend.log("s")), "g", "c"), list[int]()
        await dialogue.say(GroupTurn(limit=1), meanwhile=lambda: calls.append(1))
        assert calls == [1]


async def test_a_turn_without_an_answer_is_said_again_and_claims_nothing_more():
    async with open_backend("memory://") as backend:
        log: Any = Deaf(await filled(backend.log("s")))
        dialogue = Dialogue(log, "g", "c")
        (first,) = (await dialogue.say(GroupTurn(limit=1))).claimed
        log.loses = True
        with pytest.raises(BackendUnavailableError):
            await dialogue.say(GroupTurn(acks=[first.id], limit=1))
        assert dialogue.unclear
        log.loses = False
        assert [each.payload for each in await dialogue.clear_up()] == [b"1"]
        assert not dialogue.unclear
        assert [each.payload for each in await dialogue.clear_up()] == [b"1"]


async def test_a_turn_stays_unclear_until_it_is_known_what_it_has_claimed():
    async with open_backend("memory://") as backend:
        log: Any = Deaf(await filled(backend.log("s")))
        dialogue = Dialogue(log, "g", "c")
        log.loses = True
        with pytest.raises(BackendUnavailableError):
            await dialogue.say(GroupTurn(limit=1))
        log.loses, log.hides = False, True
        with pytest.raises(BackendUnavailableError):
            await dialogue.clear_up()
        assert dialogue.unclear
        log.hides = False
        assert [each.payload for each in await dialogue.clear_up()] == [b"0"]
        assert not dialogue.unclear
