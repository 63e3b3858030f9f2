"""Outcomes for their time, and dead letters."""

from __future__ import annotations

from aiopatterns.backends.memory import queuekept
from aiopatterns.backends.memory.home import MemoryHome
from aiopatterns.backends.memory.queuejob import Job
from aiopatterns.backends.memory.queuekept import Kept
from aiopatterns.backends.queue import DEAD_TTL, NewJob, Outcome
from aiopatterns.core.clock import sleep
from aiopatterns.testing import simulate

WEEK = round(DEAD_TTL * 1_000)


def job(name: str) -> Job:
    made = Job(NewJob(name, b""), 0)
    made.tries = 3
    return made


def test_an_outcome_lives_as_long_as_asked():
    async def scenario() -> None:
        kept = Kept(MemoryHome())
        kept.keep("a", Outcome("done", b"r", 1), 5_000)
        assert kept.outcome("a", 0) == Outcome("done", b"r", 1)
        assert kept.state("a", 0) == "done"
        await sleep(5.0)
        assert kept.outcome("a", 0) is None
        assert kept.state("a", 0) == "unknown"

    simulate(scenario)


def test_a_letter_is_gone_after_a_week():
    kept = Kept(MemoryHome())
    kept.bury(job("a"), b"why", 1_000)
    kept.bury(job("b"), b"why", 2_000)
    assert kept.outcome("a", WEEK + 999) == Outcome("dead", b"why", 3)
    assert kept.state("a", WEEK + 1_000) == "unknown"
    assert kept.state("b", WEEK + 1_000) == "dead"
    kept.trim(WEEK + 2_000)
    assert kept.letters == {}


def test_the_newest_letters_are_kept(monkeypatch):
    monkeypatch.setattr(queuekept, "DEAD_LIMIT", 3)
    kept = Kept(MemoryHome())
    for n in range(5):
        kept.bury(job(f"j{n}"), b"", n)
    assert [each.job.id for each in kept.newest_first()] == ["j4", "j3", "j2"]


def test_who_dies_again_is_the_newest():
    kept = Kept(MemoryHome())
    for name in ("a", "b", "a"):
        kept.bury(job(name), b"", 1)
    assert [each.job.id for each in kept.newest_first()] == ["a", "b"]
