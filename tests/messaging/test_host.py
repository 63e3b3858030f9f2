"""The run of a service: cancellation, faults, outages and ends, whatever its parts do."""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from aiopatterns import Broker, HealthChecker, RemoteError, Service, ServiceRegistry
from aiopatterns.backends import open_backend
from aiopatterns.backends.memory.backend import MemoryBackend
from aiopatterns.backends.redis.embedded import RedisServer
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.errors import AioPatternsError
from aiopatterns.messaging import ServiceState, run_services
from aiopatterns.messaging.host import EXIT_WITHIN, FAREWELL, LAST, TOLD_WITHIN
from aiopatterns.testing import Trial, cancel_everywhere, explore, fail_everywhere, simulate
from tests.messaging.stormy import Stormy


def wrong(value: object) -> Any:
    """Hide from the type checker that it is a stand-in."""
    return value


def adder(**options: Any) -> Service:
    """A service of one handler."""
    service = Service("adder", **options)

    @service.command("add")
    async def add(payload: list[int]) -> int:
        await sleep(0.01)
        return sum(payload)

    return service


@pytest.mark.promise("messaging-service-cancel")
def test_a_run_cancelled_at_any_await_leaves_nothing():
    def scenario() -> Trial:
        backend, steps = open_backend("memory://"), []

        @asynccontextmanager
        async def lifespan():
            steps.append("+")
            try:
                yield
            finally:
                await sleep(0.1)  # to close what it has opened takes time, and it has it
                steps.append("-")

        service = adder(lifespan=lifespan)
        service.every(0.05)(lambda: None)
        broker, registry = Broker(backend), ServiceRegistry(backend, propagation=0.1)
        run = service.run(broker, registry, checker=HealthChecker({}), propagation=0.1)

        async def work() -> None:
            async with run:
                assert await broker.request("add", [1, 2]) == 3
                await sleep(0.1)
            assert run.statistics().done == 3

        def check() -> None:
            assert run.state is ServiceState.STOPPED
            assert steps in ([], ["+", "-"])
            figures = run.statistics()
            for each in figures.handlers.values():
                assert each.calls == each.done + each.failed + each.cancelled
                assert not each.active
            assert not broker.is_open
            assert not registry.is_open

        return Trial(work(), check)

    cancel_everywhere(scenario, kinds=("native", "scope", "timeout", "native-twice"), minimum=5)


@pytest.mark.promise("messaging-service-cancel")
def test_a_program_of_services_cancelled_at_any_await_leaves_nothing():
    def scenario() -> Trial:
        broker, stop = Broker("memory://"), anyio.Event()
        users, orders = Service("users"), Service("orders", needs=["users"])
        for service in (users, orders):
            service.query(f"{service.name}.get")(lambda: None)

        async def work() -> None:
            async with anyio.create_task_group() as tasks:
                tasks.start_soon(after, 0.3, stop.set)
                await run_services([orders, users], broker, propagation=0.1, stop=stop)

        def check() -> None:
            assert not broker.is_open

        return Trial(work(), check)

    cancel_everywhere(scenario, minimum=5)


async def after(seconds: float, then: Any) -> None:
    await sleep(seconds)
    then()


@pytest.mark.promise("messaging-service-fail-everywhere")
def test_user_functions_that_fail_at_any_call_leave_nothing():
    def scenario(fault: Any) -> Trial:
        broker = Broker("memory://")

        @asynccontextmanager
        async def lifespan():
            fault()
            yield
            fault()

        service = Service("faulty", lifespan=lifespan)

        @service.command("do", key=lambda message: fault())
        async def do() -> None:
            fault()

        @service.event("event")
        def hear() -> None:
            fault()

        @service.every(0.05)
        async def tick() -> None:
            fault()

        run = service.run(broker, propagation=0)

        async def work() -> None:
            async with run:
                with anyio.move_on_after(0.12):
                    while True:
                        try:
                            await broker.request("do")
                        except RemoteError as error:
                            assert error.type == "InjectedError"
                        await broker.publish("event")
                        await sleep(0.03)

        def check() -> None:
            assert run.state is ServiceState.STOPPED
            assert not broker.is_open
            for each in run.statistics().handlers.values():
                assert each.calls == each.done + each.failed

        return Trial(work(), check)

    fail_everywhere(scenario, minimum=8)


@pytest.mark.promise("messaging-service-seeds")
def test_replicas_come_and_go_under_load_and_every_request_is_answered():
    async def scenario() -> None:
        backend = open_backend("memory://")
        answers: list[int] = []

        async def replica(begin: float, seconds: float) -> None:
            await sleep(begin)
            async with adder().run(Broker(backend), propagation=0.05) as run:
                await sleep(seconds)
            figures = run.statistics()
            assert (figures.failed, figures.cancelled) == (0, 0)

        async def customer(broker: Broker, number: int) -> None:
            for turn in range(3):
                answers.append(await broker.request("add", [number, turn]))
                await sleep(0.03)

        async with Broker(backend) as broker, anyio.create_task_group() as tasks:
            tasks.start_soon(replica, 0.0, 1.0)
            for number in range(2):
                tasks.start_soon(replica, 0.05 * number, 0.1)
            await sleep(0.02)
            for number in range(6):
                tasks.start_soon(customer, broker, number)
        assert len(answers) == 18

    explore(scenario, range(60))


@pytest.mark.promise("messaging-service-drain")
def test_leaving_takes_no_longer_than_was_said():
    service = adder()

    @service.command("deaf")
    async def deaf() -> None:
        with anyio.CancelScope(shield=True):  # hears of no cancellation for a while
            await sleep(60)

    async def scenario() -> float:
        async with Broker("memory://", grace=0) as broker:
            async with service.run(broker, propagation=0.5, grace=3) as run:
                await broker.send("deaf")
                await sleep(0.001)
                assert run.statistics().handlers["deaf"].active == 1
                began = monotonic()
            return monotonic() - began

    # In memory nobody has to be told; what ends the scenario then is the broker's own task.
    assert simulate(scenario) <= 0.5 + 3 + LAST + FAREWELL + 0.01


@pytest.mark.promise("messaging-service-drain")
@pytest.mark.parametrize("away", ["refuses", "hangs"])
def test_leaving_does_not_wait_for_a_backend_that_is_away(away):
    async def scenario() -> float:
        way = Stormy(MemoryBackend())
        async with Broker(wrong(way), grace=0) as broker:
            async with adder().run(broker, propagation=0.2):
                if away == "refuses":
                    way.outage()
                way.hangs = away == "hangs"
                began = monotonic()
            return monotonic() - began

    assert simulate(scenario) <= 0.2 + TOLD_WITHIN + FAREWELL + 0.01


def test_a_lifespan_that_never_closes_is_left_when_cancelled():
    async def scenario() -> float:
        @asynccontextmanager
        async def lifespan():
            try:
                yield
            finally:
                await anyio.sleep_forever()

        with anyio.move_on_after(1):
            async with adder(lifespan=lifespan).run(Broker("memory://")):
                await anyio.sleep_forever()
        return monotonic()

    assert simulate(scenario) == pytest.approx(1 + EXIT_WITHIN, abs=1.5)


async def test_a_body_that_fails_leaves_bare_and_at_once():
    error = LookupError("mine")
    with pytest.raises(LookupError) as caught:
        async with adder().run(Broker("memory://")):
            raise error
    assert caught.value is error


async def test_a_lifespan_that_fails_at_its_end_is_told():
    @asynccontextmanager
    async def lifespan():
        yield
        raise OSError("not flushed")

    with pytest.raises(OSError, match="not flushed"):
        async with adder(lifespan=lifespan).run(Broker("memory://"), propagation=0):
            pass


@pytest.mark.real
@pytest.mark.promise("messaging-service-outage")
async def test_an_outage_ends_no_service():
    with RedisServer(private=True) as server:
        broker, customer = Broker(server.url), Broker(server.url)
        async with broker, customer, adder().run(broker, propagation=0) as run:
            assert await customer.request("add", [1, 2]) == 3
            server.kill()
            with pytest.raises(AioPatternsError):
                await customer.request("add", [1, 2], timeout=0.5)
            assert run.state is ServiceState.READY
            await anyio.to_thread.run_sync(server.restart)
            with anyio.fail_after(20):
                while not await answers(customer):
                    await sleep(0.05)
                while not run.health().ok:
                    await sleep(0.02)


async def answers(customer: Broker) -> bool:
    """Whether the service answers."""
    try:
        return await customer.request("add", [3, 4], timeout=2) == 7
    except AioPatternsError:
        return False
