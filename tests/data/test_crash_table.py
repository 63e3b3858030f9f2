"""The table of crash points: every point, for every participant, through recovery to the end.

Points are those of the table in docs/patterns/two-phase-commit.md, which names these tests. The
coordinator "dies" here by having no effect any more; tests/data/test_kills.py kills processes.
"""

from __future__ import annotations

import asyncio
import re
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from aiopatterns.core.clock import sleep
from aiopatterns.core.errors import (
    BackendUnavailableError,
    HeuristicOutcomeError,
    OutcomeUnknownError,
    TimeoutExceededError,
    TwoPhaseError,
)
from aiopatterns.data import (
    Decision,
    HeuristicFound,
    SqliteLog,
    TransactionsForeign,
    TwoPhaseCommit,
)
from aiopatterns.testing import capture_events
from tests.data.twophaseplaces import (
    NEW,
    OLD,
    Died,
    Life,
    MemoryPlace,
    World,
    place_of,
)

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

pytestmark = [
    pytest.mark.promise("data-2pc-crash-table"),
    pytest.mark.leaves("*2pc:redis:v:*"),
    pytest.mark.untraced,  # the files of the room have tests of their own
]

TESTS = Path(__file__).parent
PAGE = TESTS.parents[1] / "docs" / "patterns" / "two-phase-commit.md"

KINDS = [
    "memory",
    "redis-memory",
    "sqlite",
    pytest.param("redis", marks=pytest.mark.real),
    pytest.param("postgres", marks=pytest.mark.real),
]


@asynccontextmanager
async def opened(world: World) -> AsyncIterator[World]:
    """Keep the backend of a world open: one in memory is empty when it was closed."""
    if hasattr(world.place, "backend"):
        async with world.place.backend:
            yield world
    else:
        yield world


@pytest.fixture(params=KINDS)
async def world(request, tmp_path) -> AsyncIterator[World]:
    place = place_of(request, request.param)
    async with opened(World(place, MemoryPlace("other"), str(tmp_path / "log.db"))) as each:
        yield each


async def dies(world: World, verb: str, name: str, when: str) -> None:
    """Let a coordinator die at a point; its caller sees some error, or none if all was said."""
    life = Life((verb, name, when))
    with suppress(Died, TwoPhaseError, BackendUnavailableError):
        await world.run(life)
    assert life.dead, "the point was reached"


def test_the_table_of_the_page_names_tests_that_there_are():
    named = {*re.findall(r"`(test_\w+)`", PAGE.read_text("utf-8"))}
    text = "".join(
        (TESTS / f"{each}.py").read_text() for each in ("test_crash_table", "test_kills")
    )
    there = {*re.findall(r"^(?:async )?def (test_\w+)", text, re.MULTILINE)}
    assert len(named) >= 19
    assert named <= there


async def test_without_a_crash(world):
    await world.run()
    assert await world.values() == (NEW, NEW)
    await world.assert_at_rest()


async def test_a_before_any_prepare(world):
    await dies(world, "prepare", world.place.name, "before")
    await world.recover()
    assert await world.values() == (OLD, OLD)
    await world.assert_at_rest()


@pytest.mark.parametrize("first", [0, 1])
async def test_b_after_some_prepare(world, first):
    await dies(world, "prepare", world.places[first].name, "after")
    report = await world.recover()
    assert world.gid in report.aborted
    assert await world.values() == (OLD, OLD)
    await world.assert_at_rest()


async def test_c_prepare_sent_and_the_answer_lost(world):
    async def lost() -> None:
        raise BackendUnavailableError("the answer is lost")

    with pytest.raises(TwoPhaseError, match="the answer is lost") as caught:
        await world.run(Life(("prepare", world.place.name, "after"), lost))
    assert not isinstance(caught.value, OutcomeUnknownError)
    assert await world.values() == (OLD, OLD)
    await world.assert_at_rest()


async def test_c_a_prepare_that_arrives_after_its_rollback_is_swept(world):
    """Told to roll back, a participant has nothing; the promise comes to be after that."""
    participant = world.place.open()
    transfers = TwoPhaseCommit(world.log(), [participant])
    async with transfers.transaction() as tx:
        gid = tx.gid
    assert await world.place.open().rollback(gid) is False  # another process, which knows nothing
    await world.place.write(participant.branch(gid))
    try:
        await participant.prepare(gid)
    except Exception as error:
        assert "rolled back" in str(error)
        await participant.rollback(gid)
    await world.recover()
    assert await world.values() == (OLD, OLD)
    await world.assert_at_rest()


async def test_d_all_have_promised_and_nothing_is_decided(world):
    await dies(world, "decide", "log", "before")
    report = await world.recover()
    assert report.aborted == (world.gid,)
    asked = TwoPhaseCommit(world.log(), [MemoryPlace().open()])
    assert await asked.outcome(world.gid) is Decision.ABORT
    assert await world.values() == (OLD, OLD)
    await world.assert_at_rest()


async def test_d_the_time_of_a_coordinator_is_not_over(world):
    """It may be alive: nobody touches its promises before its time is over."""
    await dies(world, "decide", "log", "before")
    recoverer = TwoPhaseCommit(world.log(), [each.open() for each in world.places], timeout=30)
    report = await recoverer.recover_once()
    assert report.pending == (world.gid,)
    assert not report.aborted
    assert await recoverer.outcome(world.gid) is None
    await world.recover()
    await world.assert_at_rest()


async def test_e_the_decision_is_written_and_nobody_knows(world):
    await dies(world, "decide", "log", "after")
    report = await world.recover()
    assert report.committed == (world.gid,)
    assert await world.values() == (NEW, NEW)
    await world.assert_at_rest()


@pytest.mark.parametrize(("when", "value"), [("before", OLD), ("after", NEW)])
async def test_e_the_answer_of_the_log_is_lost(world, when, value):
    """The coordinator lives: it asks the log by claiming an abort, and obeys what is there."""

    async def lost() -> None:
        raise BackendUnavailableError("the answer is lost")

    life = Life(("decide", "log", when), lost)
    if value is OLD:
        with pytest.raises(TwoPhaseError, match="has aborted it"):
            await world.run(life)
    else:
        await world.run(life)
    assert await world.values() == (value, value)
    await world.assert_at_rest()


@pytest.mark.parametrize(("when", "value"), [("before", OLD), ("after", NEW)])
async def test_e_the_log_stays_away(world, when, value):
    life = Life(("decide", "log", when))

    async def gone() -> None:
        life.dead = True
        raise BackendUnavailableError("the log is away")

    life.fault = gone
    with pytest.raises(OutcomeUnknownError) as caught:
        await world.run(life)
    assert caught.value.gid == world.gid
    report = await world.recover()
    assert (report.committed, report.aborted)[value is OLD] == (world.gid,)
    assert await world.values() == (value, value)
    await world.assert_at_rest()


async def test_f_after_the_decision_before_the_second_phase(world):
    life = Life(("commit", world.place.name, "before"))
    await world.run(life)  # committed, as far as the caller is concerned
    assert life.dead
    report = await world.recover()
    assert report.committed == (world.gid,)
    assert await world.values() == (NEW, NEW)
    await world.assert_at_rest()


@pytest.mark.parametrize("first", [0, 1])
async def test_g_after_some_commits(world, first):
    life = Life(("commit", world.places[first].name, "after"))
    await world.run(life)
    assert life.dead
    report = await world.recover()
    assert report.committed == (world.gid,)
    assert await world.values() == (NEW, NEW)
    await world.assert_at_rest()


async def test_h_commit_sent_and_the_answer_lost(world):
    async def lost() -> None:
        raise BackendUnavailableError("the answer is lost")

    await world.run(Life(("commit", world.place.name, "after"), lost))
    assert await world.values() == (NEW, NEW)
    report = await world.recover()
    assert report.committed == (world.gid,)  # told again, it remembers
    await world.assert_at_rest()


async def test_i_all_have_committed_and_the_end_is_not_written(world):
    life = Life(("end", "log", "before"))
    await world.run(life)
    assert life.dead
    report = await world.recover()
    assert report.committed == (world.gid,)
    assert report.heuristic == ()
    assert await world.values() == (NEW, NEW)
    await world.assert_at_rest()


async def test_j_a_slow_coordinator_wakes_after_recovery_has_aborted(world):
    async def recovered() -> None:
        report = await world.recover()
        assert report.aborted == (world.gid,)

    with pytest.raises(TwoPhaseError, match="recovery"):
        await world.run(Life(("decide", "log", "before"), recovered))
    assert await world.values() == (OLD, OLD)
    await world.assert_at_rest()


async def test_k_the_log_is_lost(world, tmp_path):
    """Another log knows nothing of the promise, and does not touch it: a person has to decide."""
    await dies(world, "decide", "log", "after")
    kept, world.log_path = world.log_path, str(tmp_path / "another.db")
    with capture_events() as events:
        report = await world.recover()
        assert report.foreign == (world.gid,)
        assert not report.aborted
        assert not report.committed
        stranger = TwoPhaseCommit(SqliteLog(world.log_path), [each.open() for each in world.places])
        recovery = stranger.recovery(interval=0.01, lease=1)
        async with recovery:
            while recovery.statistics().turns < 2:
                await sleep(0.01)
    assert [each for each in events if isinstance(each, TransactionsForeign)] == [
        TransactionsForeign((world.gid,))
    ]
    assert await world.values() == (OLD, OLD)
    world.log_path = kept
    await world.recover()
    assert await world.values() == (NEW, NEW)


@pytest.mark.parametrize("decided_by", ["hand", "failover"])
async def test_l_m_a_promise_is_gone_against_the_decision(world, decided_by):
    """Rolled back by hand, or lost with a server: the participant knows nothing of either."""
    life = Life(("commit", world.place.name, "before"))
    await world.run(life)
    await world.place.lose(world.gid)
    with capture_events() as events:
        report = await world.recover()
        assert report.heuristic == (world.gid,)
        assert report.committed == ()
        again = await world.recover()
    assert again.heuristic == (world.gid,), "it is reported until a person has mended it"
    found = [each for each in events if isinstance(each, HeuristicFound)]
    assert found == [HeuristicFound(world.gid, "commit", (world.place.name,))]
    assert await world.values() == (OLD, NEW)
    person = TwoPhaseCommit(world.log(), [each.open() for each in world.places])
    await person.resolve(world.gid)
    await world.assert_at_rest()


async def test_l_the_coordinator_itself_meets_it(world):
    async def by_hand() -> None:
        await world.place.lose(world.gid)

    with pytest.raises(HeuristicOutcomeError, match="rolled back by") as caught:
        await world.run(Life(("commit", world.place.name, "before"), by_hand))
    assert caught.value.gid == world.gid
    assert world.coordinators[0].statistics().heuristic == 1
    assert (await world.recover()).heuristic == (world.gid,)


async def test_l_committed_by_hand_against_an_abort(world):
    await dies(world, "decide", "log", "before")
    assert await world.place.open().commit(world.gid)
    with capture_events() as events:
        report = await world.recover()
    assert report.heuristic == (world.gid,)
    assert HeuristicFound(world.gid, "abort", (world.place.name,)) in events
    assert await world.values() == (NEW, OLD)


@pytest.mark.parametrize("how", ["native", "scope"])
async def test_n_the_caller_is_cancelled_before_the_decision(world, how):
    await cancelled_at(world, ("decide", "log", "before"), how, prepared=True)
    # The cancellation came when the decision was under way: then it is made.
    assert await world.values() == (NEW, NEW)
    await world.assert_at_rest()


@pytest.mark.parametrize("how", ["native", "scope"])
async def test_n_the_caller_is_cancelled_in_the_first_phase(world, how):
    await cancelled_at(world, ("prepare", world.place.name, "before"), how)
    assert await world.values() == (OLD, OLD)
    await world.assert_at_rest()


@pytest.mark.parametrize("how", ["native", "scope"])
async def test_n_the_caller_is_cancelled_after_the_decision(world, how):
    await cancelled_at(world, ("commit", world.place.name, "before"), how)
    assert await world.values() == (NEW, NEW)
    await world.assert_at_rest()


async def cancelled_at(world: World, point: Any, how: str, *, prepared: bool = False) -> None:
    """Cancel the caller when its transaction is at a point; it ends cancelled."""
    scope = anyio.CancelScope()
    reached = anyio.Event()

    async def cancel() -> None:
        reached.set()
        if how == "native":
            task.cancel()
        else:
            scope.cancel()
        await sleep(0.001)

    async def work() -> str:
        with scope:
            await world.run(Life(point, cancel))
            return "not cancelled"
        return "scope"

    task = asyncio.ensure_future(work())
    await reached.wait()
    if how == "native":
        with pytest.raises(asyncio.CancelledError):
            await task
    else:
        assert await task in {"scope", "not cancelled"}


async def test_the_time_is_over_before_the_decision(world):
    async def slow() -> None:
        await sleep(0.2)

    with pytest.raises(TimeoutExceededError, match=r"longer than 0.1 s"):
        await world.run(Life(("prepare", world.place.name, "before"), slow), timeout=0.1)
    assert await world.values() == (OLD, OLD)
    await world.assert_at_rest()
