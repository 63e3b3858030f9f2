"""Carrying out a decision: who is done, who is asked again, and who has done the opposite."""

from __future__ import annotations

from typing import Any

import pytest

from aiopatterns.core.clock import sleep
from aiopatterns.core.errors import BackendUnavailableError
from aiopatterns.data import Decision, Fate, MemoryLog, MemoryParticipant, Proposal, Vote, carrying
from aiopatterns.data.carrying import Standing, carry_out, judged

COMMIT, ABORT = Decision.COMMIT, Decision.ABORT


class Spoken:
    """A participant that says what it was told to."""

    def __init__(self, name: str, *, acted: Any = False, fate: Fate = Fate.UNKNOWN) -> None:
        self.name = name
        self.acted = acted
        self.fate = fate

    async def commit(self, gid: str) -> bool:
        if isinstance(self.acted, Exception):
            raise self.acted
        if self.acted == "silent":
            await sleep(3600)
        return bool(self.acted)

    rollback = commit

    async def outcome(self, gid: str) -> Fate:
        return self.fate


@pytest.mark.parametrize(
    ("decision", "acted", "fate", "standing"),
    [
        (COMMIT, True, None, Standing.DONE),
        (COMMIT, False, Fate.COMMITTED, Standing.DONE),
        (COMMIT, False, Fate.PREPARED, Standing.PENDING),
        (COMMIT, False, Fate.UNKNOWN, Standing.OPPOSED),
        (ABORT, True, None, Standing.DONE),
        (ABORT, False, Fate.COMMITTED, Standing.OPPOSED),
        (ABORT, False, Fate.PREPARED, Standing.PENDING),
        (ABORT, False, Fate.UNKNOWN, Standing.DONE),
    ],
)
async def test_every_answer_is_judged(decision, acted, fate, standing):
    assert judged(decision, acted=acted, fate=fate) is standing
    spoken: Any = Spoken("a", acted=acted, fate=fate or Fate.UNKNOWN)
    carried = await carry_out("g", decision, [spoken])
    assert ([*carried.done], [*carried.pending], carried.opposed) == (
        ["a"] if standing is Standing.DONE else [],
        ["a"] if standing is Standing.PENDING else [],
        ["a"] if standing is Standing.OPPOSED else [],
    )


async def test_who_fails_or_is_silent_is_pending_and_the_others_are_told(monkeypatch):
    monkeypatch.setattr(carrying, "ANSWERED_WITHIN", 0.01)
    fine = MemoryParticipant("fine")
    await fine.branch("g").execute("x", 1)
    assert await fine.prepare("g") is Vote.YES
    others: list[Any] = [
        Spoken("away", acted=BackendUnavailableError("away")),
        Spoken("mute", acted="silent"),
        fine,
    ]
    carried = await carry_out("g", COMMIT, others)
    assert [*carried.done] == ["fine"]
    assert {*carried.pending} == {"away", "mute"}
    assert "away" in carried.pending["away"]
    assert fine.get("x") == 1


async def test_the_log_is_asked_before_anybody_is_accused():
    spoken: Any = Spoken("a")
    log = MemoryLog()
    assert (await carry_out("g", COMMIT, [spoken], log=log)).done, "forgotten by the log as well"
    await log.decide(Proposal("g", COMMIT))
    assert (await carry_out("g", COMMIT, [spoken], log=log)).opposed == ["a"]
    await log.end("g")
    assert (await carry_out("g", COMMIT, [spoken], log=log)).done, "another one has ended it"
