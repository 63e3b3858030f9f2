"""The gate: one caller waits, the others do not, and nobody gets an error."""

from __future__ import annotations

import pytest
from anyio import move_on_after, sleep_forever

from aiopatterns.cache.gate import TIMEOUT, Gate
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.errors import BackendError, BackendUnavailableError, ClosedError
from aiopatterns.testing import capture_events, simulate


def raising(error):
    async def call():
        raise error

    return call


async def never():
    await sleep_forever()
    return 17


async def answer():
    return 17


def test_a_call_that_is_not_answered_closes_the_gate():
    async def scenario():
        gate = Gate("users")
        assert await gate.call(answer) is None
        assert await gate.call(answer, probe=True) == 17
        gate.back()
        assert await gate.call(answer) == 17
        with capture_events() as events:
            began = monotonic()
            assert await gate.call(never) is None
            assert monotonic() - began == pytest.approx(TIMEOUT)
            assert not gate.up
            assert await gate.call(never) is None
            assert monotonic() - began == pytest.approx(TIMEOUT)
            gate.lost("told once")
            await sleep(2)
            gate.back()
            assert gate.up
        lost, back = events
        assert (lost.cache, lost.error) == ("users", "no answer within 0.25 s")
        assert back.after == pytest.approx(2)

    simulate(scenario)


async def test_what_a_failure_means():
    gate = Gate("users")
    gate.back()
    with capture_events() as events:
        assert await gate.call(raising(BackendError("READONLY"))) is None
        assert await gate.call(raising(BackendError("READONLY"))) is None
        assert gate.up
        assert await gate.call(raising(ClosedError("closed"))) is None
        assert not gate.up
        gate.back()
        assert await gate.call(raising(BackendUnavailableError("gone"))) is None
        assert not gate.up
    names = [each.name.rpartition(".")[2] for each in events]
    assert names == ["tier_refused", "tier_lost"]
    with pytest.raises(ZeroDivisionError):
        await gate.call(raising(ZeroDivisionError()), probe=True)


async def test_nobody_listens():
    gate = Gate("users")
    gate.back()
    assert await gate.call(raising(BackendError("OOM"))) is None
    assert await gate.call(raising(BackendUnavailableError("gone"))) is None
    gate.back()
    assert gate.up


def test_a_cancelled_caller_says_nothing_about_the_server():
    async def scenario():
        gate = Gate("users")
        gate.back()
        with move_on_after(0.1):
            await gate.call(never)
        assert gate.up

    simulate(scenario)
