"""Who is woken, and what becomes of a wake-up that its receiver cannot use."""

from __future__ import annotations

import asyncio

import anyio
import pytest
from anyio import wait_all_tasks_blocked

from aiopatterns.backends.memory.queuebell import Bell
from aiopatterns.testing import Trial, cancel_everywhere, explore


class Sleepers:
    """Tasks that wait at a bell, by name; ``woken`` in order."""

    def __init__(self, bell: Bell) -> None:
        self.bell = bell
        self.woken: list[str] = []
        self.timed_out: list[str] = []

    async def sleep(self, worker: str, timeout: float = 60.0, *, deaf: bool = False) -> None:
        answer = await self.bell.wait(worker, timeout, deaf=deaf)
        (self.woken if answer else self.timed_out).append(worker)


async def test_one_ring_wakes_the_first_who_came():
    bell = Bell()
    sleepers = Sleepers(bell)
    async with anyio.create_task_group() as group:
        for worker in "abc":
            group.start_soon(sleepers.sleep, worker)
            await wait_all_tasks_blocked()
        bell.ring()
        await wait_all_tasks_blocked()
        assert sleepers.woken == ["a"]
        bell.ring()
        bell.ring()
    assert sleepers.woken == ["a", "b", "c"]


async def test_it_rings_on_until_somebody_comes():
    bell = Bell()
    bell.ring()
    bell.ring()
    assert await bell.wait("a", 60.0, deaf=False)
    assert not await bell.wait("a", 0.001, deaf=False)


async def test_hushed_it_wakes_nobody():
    bell = Bell()
    bell.ring()
    bell.hush()
    assert not await bell.wait("a", 0.001, deaf=False)


async def test_the_deaf_hear_only_their_names():
    bell = Bell()
    sleepers = Sleepers(bell)
    bell.ring()
    async with anyio.create_task_group() as group:
        group.start_soon(lambda: sleepers.sleep("deaf", deaf=True))
        await wait_all_tasks_blocked()
        bell.hush()
        group.start_soon(sleepers.sleep, "other")
        await wait_all_tasks_blocked()
        bell.ring()
        await wait_all_tasks_blocked()
        assert sleepers.woken == ["other"]
        bell.call("deaf")
    assert sleepers.woken == ["other", "deaf"]


async def test_a_call_is_kept_until_it_is_heard_or_forgotten():
    bell = Bell()
    bell.call("a")
    assert await bell.wait("a", 60.0, deaf=True)
    bell.call("a")
    bell.forget("a")
    bell.forget("nobody")
    assert not await bell.wait("a", 0.001, deaf=True)


async def test_closing_wakes_all():
    bell = Bell()
    sleepers = Sleepers(bell)
    async with anyio.create_task_group() as group:
        for worker in "abc":
            group.start_soon(sleepers.sleep, worker)
        await wait_all_tasks_blocked()
        bell.wake_all()
    assert sorted(sleepers.woken) == ["a", "b", "c"]


@pytest.mark.parametrize("deaf", [False, True])
async def test_who_is_cancelled_after_the_wake_up_hands_it_on(deaf):
    bell = Bell()
    task = asyncio.create_task(bell.wait("a", 60.0, deaf=deaf))
    await wait_all_tasks_blocked()
    bell.call("a") if deaf else bell.ring()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert await bell.wait("a", 60.0, deaf=deaf)


@pytest.mark.promise("backends-queue-wake")
def test_no_wake_up_is_lost_wherever_a_wait_is_cancelled():
    def scenario() -> Trial:
        bell = Bell()
        sleepers = Sleepers(bell)

        async def work() -> None:
            async with anyio.create_task_group() as group:
                group.start_soon(sleepers.sleep, "heir", 5.0)
                await anyio.sleep(0)
                group.start_soon(_ring_soon, bell)
                await bell.wait("victim", 5.0, deaf=False)

        async def check() -> None:
            # Woken, or still to be had: by the heir, or by whoever comes next.
            rang = bool(sleepers.woken) or await bell.wait("next", 0.0, deaf=False)
            assert rang or not bell._beds

        return Trial(work(), check)

    cancel_everywhere(scenario, minimum=2)


async def _ring_soon(bell: Bell) -> None:
    await anyio.sleep(0.001)
    bell.ring()
    bell.ring()


def test_each_of_many_wake_ups_reaches_somebody():
    async def scenario() -> None:
        bell = Bell()
        work = 20
        taken: list[str] = []

        async def worker(name: str) -> None:
            nonlocal work
            while len(taken) < 20:
                if not await bell.wait(name, 1.0, deaf=False):
                    break
                if work:
                    work -= 1
                    taken.append(name)
                if work:
                    bell.ring()

        async with anyio.create_task_group() as group:
            for n in range(4):
                group.start_soon(worker, f"w{n}")
            await anyio.sleep(0.001)
            bell.ring()
            with anyio.move_on_after(0.0005):
                if await bell.wait("passer-by", 1.0, deaf=False):
                    bell.ring()  # as its step would
            await anyio.sleep(0.5)
            assert len(taken) == 20
            bell.ring()

    explore(scenario, range(50))
