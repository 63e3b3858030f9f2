"""Handles: small, awaited by many, and never the owner of their item."""

from __future__ import annotations

import asyncio
import sys
from typing import Any

import anyio
import pytest

from aiopatterns.core.clock import sleep, yield_now
from aiopatterns.core.errors import JobCancelledError
from aiopatterns.flow import pool as flow_pool
from aiopatterns.flow.handle import Handle, HandleStatus, Terms, Ticket
from aiopatterns.testing import Trial, cancel_everywhere, simulate

# Typed in tests/typing; tests do on purpose what types forbid.
WorkerPool: Any = flow_pool.WorkerPool


async def double(item):
    return item * 2


async def test_a_handle_is_small():
    async with WorkerPool(double) as pool:
        handle = await pool.submit(1)
        assert isinstance(handle, Ticket)
        assert isinstance(handle, Handle)
        assert sys.getsizeof(handle) <= 200
        assert not hasattr(handle, "__dict__")
        assert not hasattr(Terms(), "__dict__")
        await handle
        # What has ended holds on to nothing but its result.
        assert (handle.terms, handle.worker, handle.watcher) == (None, None, None)
        assert not list(handle.variables)


def test_a_handle_is_made_by_a_pool():
    abstract: Any = Handle
    with pytest.raises(TypeError, match="abstract"):
        abstract()


def test_the_statuses_are_those_of_the_contract():
    assert [status.name for status in HandleStatus] == [
        "QUEUED",
        "RUNNING",
        "DONE",
        "FAILED",
        "CANCELLED",
    ]


async def test_its_text_names_the_item_and_where_it_is():
    async with WorkerPool(double) as pool:
        handle = await pool.submit(1)
        assert repr(handle) == "<Handle 0 of 'double' queued>"
        handle.cancel()
        assert repr(handle) == "<Handle 0 of 'double' cancelled>"


async def test_each_await_of_a_cancelled_handle_raises_an_error_of_its_own():
    async with WorkerPool(double) as pool:
        handle = await pool.submit(1)
        handle.cancel()
        errors = []
        for _ in range(2):
            with pytest.raises(JobCancelledError) as caught:
                await handle
            errors.append(caught.value)
        assert errors[0] is not errors[1]


def test_waiting_for_a_handle_cancelled_everywhere_leaves_the_item_alone():
    def trial():
        async def work():
            async with WorkerPool(double) as pool:
                handles.append(await pool.submit(1))
                await handles[-1]

        def check():
            assert handles.pop().status in (HandleStatus.DONE, HandleStatus.CANCELLED)

        handles = []
        return Trial(work(), check)

    cancel_everywhere(trial)


def test_a_scope_that_cancels_the_pool_and_the_body_is_what_the_body_sees():
    async def run():
        async def work(item):
            await sleep(10)

        async def body(scope):
            async with WorkerPool(work) as pool:
                handle = await pool.submit(1)
                await sleep(1)
                scope.cancel()
                handle.cancel()
                # The item is settled in the turn in which this task sees its cancellation.
                await handle

        with anyio.CancelScope() as scope:
            await body(scope)
        assert scope.cancelled_caught

    simulate(run)


async def test_an_item_that_is_cancelled_already_lets_a_cancellation_go_first():
    async with WorkerPool(double) as pool:
        handle = await pool.submit(1)
        handle.cancel()
        with anyio.CancelScope() as scope:
            scope.cancel()
            await handle
        assert scope.cancelled_caught


async def test_outlast_ends_with_the_item():
    release = asyncio.Event()

    async def work(item):
        await release.wait()
        raise ValueError

    async with WorkerPool(work) as pool:
        handle = await pool.submit(1)
        waiting = asyncio.ensure_future(handle.outlast())
        for _ in range(3):
            await yield_now()
            waiting.cancel()
        release.set()
        assert await waiting is None
        await handle.outlast()
