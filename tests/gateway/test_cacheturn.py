"""Turns: however one ends, everybody goes on, with an error of his own if there is one."""

from __future__ import annotations

import anyio
import pytest
from anyio import wait_all_tasks_blocked

from aiopatterns.core.errors import UpstreamError
from aiopatterns.gateway.cacheturn import Turn


async def test_all_who_wait_go_on_when_it_ends():
    turn, done = Turn(), []

    async def wait() -> None:
        await turn.wait()
        done.append(1)

    async with anyio.create_task_group() as tasks:
        for _ in range(3):
            tasks.start_soon(wait)
        await wait_all_tasks_blocked()
        assert turn.waiting == 3
        turn.passed = True
        turn.end()
    assert len(done) == 3
    await turn.wait()  # ended already
    turn.end()


async def test_each_gets_an_error_of_its_own():
    turn, seen = Turn(), []
    turn.error = UpstreamError(name="a:1", kind="closed", sent=True)

    async def wait() -> None:
        with pytest.raises(UpstreamError) as caught:
            await turn.wait()
        seen.append(caught.value)

    async with anyio.create_task_group() as tasks:
        for _ in range(2):
            tasks.start_soon(wait)
        await wait_all_tasks_blocked()
        turn.end()
    assert seen[0] is not seen[1]
    assert seen[0] is not turn.error
    assert {error.kind for error in seen} == {"closed"}


async def test_one_who_is_cancelled_leaves_alone():
    turn, done = Turn(), []

    async def wait(scope: anyio.CancelScope) -> None:
        with scope:
            await turn.wait()
            done.append(1)

    scopes = [anyio.CancelScope() for _ in range(2)]
    async with anyio.create_task_group() as tasks:
        for scope in scopes:
            tasks.start_soon(wait, scope)
        await wait_all_tasks_blocked()
        scopes[0].cancel()
        await wait_all_tasks_blocked()
        assert turn.waiting == 1
        scopes[1].cancel()  # in the same turn of the loop as the end
        turn.end()
    assert len(done) <= 1
