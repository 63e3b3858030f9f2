"""A lane: what may be read when, and by whom."""

from __future__ import annotations

import asyncio

import pytest

from aiopatterns.core.clock import yield_now
from aiopatterns.core.waiters import Waiters
from aiopatterns.flow.lane import TURN, Job, Lane


def made(*, ordered: bool, count: int) -> tuple[Lane[str, int], list[Job[str, int]]]:
    lane: Lane[str, int] = Lane(ordered=ordered, hungry=Waiters(), read=lambda: None)
    jobs: list[Job[str, int]] = [Job("item", index) for index in range(count)]
    for job in jobs:
        job.value = job.index
        lane.started(job)
    return lane, jobs


async def test_unordered_jobs_are_read_as_they_finish():
    lane, jobs = made(ordered=False, count=3)
    for index in (2, 0):
        lane.finished(jobs[index])
    assert lane.unread() == 2
    assert [await lane.read() for _ in range(2)] == [2, 0]
    assert (lane.unread(), lane.open) == (0, 1)


async def test_ordered_jobs_wait_for_those_before_them():
    lane, jobs = made(ordered=True, count=3)
    lane.finished(jobs[1])
    reader = asyncio.create_task(lane.read())
    await yield_now()
    assert not reader.done()
    lane.finished(jobs[0])
    assert await reader == 0
    assert await lane.read() == 1


async def test_skipped_jobs_are_not_given_out_but_make_room():
    lane, jobs = made(ordered=True, count=3)
    jobs[0].skipped = jobs[1].skipped = True
    for job in jobs:
        lane.finished(job)
    assert await lane.read() == 2
    assert lane.open == 0


async def test_readers_wake_one_another():
    lane, jobs = made(ordered=True, count=2)
    readers = [asyncio.create_task(lane.read()) for _ in range(2)]
    await yield_now()
    lane.finished(jobs[1])
    lane.finished(jobs[0])
    assert sorted(await asyncio.gather(*readers)) == [0, 1]


async def test_a_cancelled_reader_hands_on():
    lane, jobs = made(ordered=False, count=1)
    first, second = (asyncio.create_task(lane.read()) for _ in range(2))
    await yield_now()
    lane.finished(jobs[0])
    first.cancel()
    assert await second == 0
    assert first.cancelled()


async def test_the_end_comes_after_what_can_be_read_and_then_the_failure_once():
    lane, jobs = made(ordered=True, count=3)
    lane.finished(jobs[0])
    lane.finished(jobs[2])
    error = ValueError()
    lane.fail(error)
    lane.fail(OSError())
    lane.end()
    assert await lane.read() == 0
    with pytest.raises(ValueError) as caught:
        await lane.read()
    assert caught.value is error
    assert error.__notes__ == ["1 more failed before everything had ended"]
    with pytest.raises(StopAsyncIteration):
        await lane.read()


async def test_reading_makes_room_for_those_who_wait_for_it():
    hungry, made_room = Waiters(), []
    lane: Lane[str, int] = Lane(ordered=False, hungry=hungry, read=lambda: made_room.append(1))
    for index in range(2):
        job: Job[str, int] = Job("item", index)
        job.value = index
        lane.started(job)
        lane.finished(job)
    await lane.read()
    assert made_room == []
    waiting = asyncio.create_task(hungry.wait())
    await yield_now()
    await lane.read()
    assert made_room == [1]
    hungry.wake()
    await waiting


async def test_reading_gives_the_loop_a_turn():
    lane, jobs = made(ordered=False, count=2 * TURN)
    for job in jobs:
        lane.finished(job)
    turned = asyncio.create_task(yield_now_task())
    for _ in range(TURN):
        await lane.read()
    assert not turned.done()
    for _ in range(TURN):
        await lane.read()
    await yield_now()
    assert turned.done()


async def yield_now_task() -> None:
    await yield_now()
