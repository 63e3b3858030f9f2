"""Services as one program: order, signals, errors, waiting for what is needed."""

from __future__ import annotations

import os
import signal
from contextlib import asynccontextmanager
from typing import Any

import anyio
import pytest

from aiopatterns import Broker, Service, ServiceRegistry, TimeoutExceededError
from aiopatterns.backends import open_backend
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.errors import CycleError
from aiopatterns.messaging import run_services
from aiopatterns.messaging.hosting import in_order
from aiopatterns.testing import explore, simulate


def wrong(value: object) -> Any:
    """Hide from the type checker what it would refuse."""
    return value


def noted(name: str, steps: list[str], *needs: str) -> Service:
    """Make a service that notes its beginning and its end."""

    @asynccontextmanager
    async def lifespan():
        steps.append(f"+{name}")
        yield
        steps.append(f"-{name}")

    service = Service(name, lifespan=lifespan, needs=needs)

    @service.query(f"{name}.get")
    async def get() -> str:
        return name

    return service


@pytest.mark.promise("messaging-service-order")
async def test_services_start_in_the_order_of_their_needs_and_stop_in_reverse():
    steps: list[str] = []
    services = [
        noted("mail", steps, "orders", "users"),
        noted("orders", steps, "users"),
        noted("users", steps),
        noted("audit", steps),
    ]
    stop, backend = anyio.Event(), open_backend("memory://")
    broker = Broker(backend)
    async with anyio.create_task_group() as tasks, Broker(backend) as customer:

        async def host(*, task_status: anyio.abc.TaskStatus[Any]) -> None:
            await run_services(services, broker, stop=stop, propagation=0, task_status=task_status)

        runs = await tasks.start(host)
        assert [each.name for each in runs] == ["users", "orders", "mail", "audit"]
        assert all(each.health().ok for each in runs)
        assert await customer.request("mail.get") == "mail"
        stop.set()
    assert steps == ["+users", "+orders", "+mail", "+audit", "-audit", "-mail", "-orders", "-users"]
    assert not broker.is_open


async def test_a_broker_and_a_registry_that_are_open_stay_open():
    backend = open_backend("memory://")
    stop = anyio.Event()
    stop.set()
    async with Broker(backend) as broker, ServiceRegistry(backend, propagation=0) as registry:
        await run_services([noted("a", [])], broker, registry=registry, stop=stop, propagation=0)
        assert broker.is_open
        assert registry.is_open
    await run_services([noted("a", [])], broker, registry=registry, stop=stop, propagation=0)
    assert not broker.is_open
    assert not registry.is_open


@pytest.mark.promise("messaging-service-order")
def test_those_that_need_each_other_are_refused():
    with pytest.raises(CycleError, match="b -> c -> b"):
        in_order([noted("a", [], "b"), noted("b", [], "c"), noted("c", [], "b")])
    with pytest.raises(CycleError, match="a -> a"):
        in_order([noted("a", [], "a")])
    assert [each.name for each in in_order([noted("a", [], "elsewhere")])] == ["a"]


@pytest.mark.promise("messaging-bad-input")
async def test_bad_input_is_named():
    with pytest.raises(ValueError, match="services must be one service or several"):
        await run_services([], Broker("memory://"))
    with pytest.raises(ValueError, match="services must be one service or several"):
        await run_services([noted("a", []), noted("a", [])], Broker("memory://"))
    with pytest.raises(TypeError, match="services must be Services"):
        await run_services([wrong("a")], Broker("memory://"))
    with pytest.raises(ValueError, match="grace"):
        await run_services([noted("a", [])], Broker("memory://"), grace=-1)


@pytest.mark.promise("messaging-service-order")
def test_a_service_of_another_program_is_waited_for():
    ready: list[float] = []

    async def scenario() -> None:
        backend = open_backend("memory://")
        stop = anyio.Event()
        async with anyio.create_task_group() as tasks, Broker(backend) as broker:

            async def late() -> None:
                await sleep(7)
                async with noted("users", []).run(broker, propagation=0):
                    await stop.wait()

            tasks.start_soon(late)
            async with noted("orders", [], "users").run(Broker(backend), propagation=0):
                ready.append(monotonic())
                stop.set()

    simulate(scenario)
    assert 7 <= ready[0] < 8


@pytest.mark.promise("messaging-service-order")
def test_a_service_that_never_comes_is_named():
    steps: list[str] = []

    async def scenario() -> None:
        with pytest.raises(
            TimeoutExceededError, match="'orders' needs 'users', which has not answered in 3 s"
        ):
            await run_services(
                [noted("orders", steps, "users")], Broker("memory://"), wait=3, stop=anyio.Event()
            )
        assert 3 <= monotonic() < 3.6

    simulate(scenario)
    assert steps == ["+orders"]  # what it had opened saw the error


@pytest.mark.promise("messaging-service-order")
def test_who_is_told_to_stop_while_it_waits_for_what_it_needs_ends_at_once():
    steps: list[str] = []

    async def scenario() -> None:
        stop, broker = anyio.Event(), Broker("memory://")
        async with anyio.create_task_group() as tasks:

            async def later() -> None:
                await sleep(1)
                stop.set()

            tasks.start_soon(later)
            await run_services([noted("orders", steps, "users")], broker, stop=stop)
        assert 1 <= monotonic() < 2
        assert not broker.is_open

    explore(scenario, range(20))


@pytest.mark.promise("messaging-service-order")
def test_who_is_told_to_stop_when_all_are_ready_ends_gracefully():
    async def scenario() -> None:
        service, stop, done = Service("slow"), anyio.Event(), list[int]()

        @service.every(0.1)
        async def slow() -> None:
            stop.set()
            await sleep(5)
            done.append(1)

        await run_services([service], Broker("memory://"), stop=stop, propagation=0)
        assert done == [1]

    explore(scenario, range(50))


@pytest.mark.real
@pytest.mark.promise("messaging-service-signals")
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_it_gracefully(number):
    steps: list[str] = []
    async with anyio.create_task_group() as tasks:

        async def host(*, task_status: anyio.abc.TaskStatus[Any]) -> None:
            broker = Broker("memory://")
            await run_services([noted("a", steps)], broker, propagation=0, task_status=task_status)

        await tasks.start(host)
        os.kill(os.getpid(), number)
    assert steps == ["+a", "-a"]


@pytest.mark.real
@pytest.mark.promise("messaging-service-signals")
async def test_a_second_signal_ends_it_at_once():
    service, called = Service("stuck"), anyio.Event()

    @service.command("stuck")
    async def stuck() -> None:
        called.set()
        await anyio.sleep_forever()

    async with anyio.create_task_group() as tasks:
        backend = open_backend("memory://")

        async def host(*, task_status: anyio.abc.TaskStatus[Any]) -> None:
            await run_services(
                [service], Broker(backend), propagation=0, grace=600, task_status=task_status
            )

        with anyio.fail_after(20):
            (run,) = await tasks.start(host)
            async with Broker(backend) as customer:
                await customer.send("stuck")
                await called.wait()
                os.kill(os.getpid(), signal.SIGTERM)
                while run.health().ok:
                    await sleep(0.005)
                os.kill(os.getpid(), signal.SIGTERM)
                while run.is_open:
                    await sleep(0.005)
    assert run.statistics().cancelled == 1


@pytest.mark.real
@pytest.mark.promise("messaging-service-signals")
async def test_a_signal_while_it_waits_for_what_it_needs_ends_it_at_once():
    steps: list[str] = []
    service = noted("orders", steps, "users")
    async with anyio.create_task_group() as tasks:
        with anyio.fail_after(20):
            tasks.start_soon(run_services, [service], Broker("memory://"))
            while steps != ["+orders"]:
                await sleep(0.005)
            os.kill(os.getpid(), signal.SIGTERM)
