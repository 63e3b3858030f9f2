"""Endpoints: every call is counted once, however it ends; the service's end cuts calls off."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import anyio
import pytest

from aiopatterns import Broker, RejectedError, RemoteError, TimeoutExceededError
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.messaging import Message
from aiopatterns.messaging.callplan import CallPlan, Shape
from aiopatterns.messaging.endpoint import Endpoint, Scene
from aiopatterns.messaging.remote import LOST
from aiopatterns.messaging.tags import Tag
from aiopatterns.testing import Trial, cancel_everywhere, explore, fail_everywhere


def endpoint(fn: Any) -> tuple[Scene, Endpoint]:
    """An endpoint of a service without a host."""
    scene = Scene("s", Broker("memory://"))
    return scene, Endpoint(
        "h", Tag(kind="command", topic="t"), CallPlan(fn, Shape(fn, payload=True), None), scene
    )


def message(payload: object = None, *, within: float | None = None) -> Message:
    """A message that was received."""
    deadline = None if within is None else monotonic() + within
    return Message(type="t", topic="t", payload=payload, deadline=deadline)


def accounts(of: Endpoint) -> tuple[int, int, int, int]:
    """Done, failed, cancelled and active calls, which are all there are."""
    figures = of.statistics()
    ended = figures.done, figures.failed, figures.cancelled, figures.active
    assert figures.calls == sum(ended)
    return ended


async def test_a_call_is_counted_as_what_it_came_to():
    async def fn(payload: int) -> int:
        assert accounts(it)[3] == 1
        return 10 // payload

    _, it = endpoint(fn)
    assert await it.handle(message(5)) == 2
    with pytest.raises(ZeroDivisionError):
        await it.handle(message(0))
    with pytest.raises(RemoteError, match="not what"):
        await it.handle(message("x"))
    assert accounts(it) == (1, 2, 0, 0)
    assert str(it.statistics().last_error).startswith("RemoteError")


@pytest.mark.promise("messaging-service-deadline")
async def test_a_call_ends_soon_after_its_deadline():
    async def fn() -> None:
        await anyio.sleep_forever()

    scene, it = endpoint(fn)
    began = monotonic()
    with pytest.raises(TimeoutExceededError, match="'h' was not done at the deadline"):
        await it.handle(message(within=0.05))
    assert monotonic() - began >= 0.05
    assert accounts(it) == (0, 1, 0, 0)
    assert not scene.scopes


async def test_a_call_that_comes_to_its_end_in_spite_of_the_deadline_has():
    async def fn() -> str:
        with suppress(BaseException):
            await anyio.sleep_forever()
        return "done all the same"

    _, it = endpoint(fn)
    assert await it.handle(message(within=0.01)) == "done all the same"
    assert accounts(it) == (1, 0, 0, 0)


@pytest.mark.promise("messaging-service-drain")
async def test_the_end_of_the_service_cuts_off_what_runs_and_refuses_the_rest():
    begun = anyio.Event()

    async def fn() -> None:
        begun.set()
        await anyio.sleep_forever()

    scene, it = endpoint(fn)

    async def call() -> None:
        with pytest.raises(RemoteError) as caught:
            await it.handle(message())
        assert (caught.value.code, caught.value.retryable) == (LOST, True)

    async with anyio.create_task_group() as tasks:
        tasks.start_soon(call)
        await begun.wait()
        assert accounts(it) == (0, 0, 0, 1)
        scene.cut()
        scene.cut()
    with pytest.raises(RejectedError, match="service 's' is stopping"):
        await it.handle(message())
    assert accounts(it) == (0, 0, 2, 0)


def test_a_call_cancelled_at_any_await_is_counted_as_cancelled():
    def scenario() -> Trial:
        async def fn(payload: int) -> int:
            await sleep(1)
            await sleep(1)
            return payload

        scene, it = endpoint(fn)

        def check() -> None:
            assert accounts(it) in {(1, 0, 0, 0), (0, 0, 1, 0)}
            assert not scene.scopes

        return Trial(it.handle(message(1, within=60)), check)

    cancel_everywhere(scenario, kinds=("native", "scope", "timeout", "native-twice"), minimum=2)


def test_a_call_that_fails_anywhere_is_counted_as_failed():
    def scenario(fault: Any) -> Trial:
        async def fn(payload: int) -> int:
            fault()
            await sleep(1)
            fault()
            return payload

        _, it = endpoint(fn)
        return Trial(it.handle(message(1)), lambda: accounts(it))

    fail_everywhere(scenario, minimum=2)


@pytest.mark.promise("messaging-service-seeds")
def test_calls_deadlines_and_the_end_in_any_order_leave_the_accounts_right():
    async def scenario() -> None:
        async def fn(payload: float) -> float:
            await sleep(payload)
            if payload > 0.5:
                raise LookupError
            return payload

        scene, it = endpoint(fn)

        async def call(number: int) -> None:
            with anyio.move_on_after(0.05 * number if number % 4 == 3 else 60):
                with suppress(LookupError, TimeoutExceededError, RemoteError, RejectedError):
                    await it.handle(message(number / 20, within=0.3 if number % 3 else None))
                accounts(it)

        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(call, number)
            await sleep(0.6)
            accounts(it)
            scene.cut()
        done, failed, cancelled, active = accounts(it)
        assert (done + failed + cancelled, active) == (20, 0)
        assert done
        assert failed
        assert cancelled

    explore(scenario, range(200))
