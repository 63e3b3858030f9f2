"""Hosting: several services as one program, in the order in which they need each other.

::

    orders needs users, mail needs orders:     start users, orders, mail
                                               stop  mail, orders, users

What is needed and is not among them is another program's; it is waited for on the broker.
"""

from __future__ import annotations

import signal
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING, Any

from anyio import TASK_STATUS_IGNORED, Event, create_task_group, open_signal_receiver

from aiopatterns.core.errors import CycleError
from aiopatterns.core.lifecycle import raise_bare
from aiopatterns.core.validate import instance
from aiopatterns.messaging.service import Service

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from anyio.abc import TaskGroup, TaskStatus

    from aiopatterns.cluster.registry import ServiceRegistry
    from aiopatterns.core.lifecycle import Lifecycle
    from aiopatterns.messaging.broker import Broker
    from aiopatterns.messaging.servicerun import ServiceRun

__all__ = ["in_order", "run_services"]


async def run_services(
    services: Iterable[Service],
    broker: Broker,
    *,
    registry: ServiceRegistry | None = None,
    grace: float = 20.0,
    propagation: float = 0.2,
    wait: float = 30.0,
    stop: Event | None = None,
    task_status: TaskStatus[tuple[ServiceRun, ...]] = TASK_STATUS_IGNORED,
) -> None:
    """Run services until told to stop; then end them gracefully, in the reverse order.

    Args:
        services: Each is started when those of them that it needs are ready.
        broker: Where they listen; opened and closed here if it is closed.
        registry: Where they register, likewise.
        grace: Seconds that the calls of each service have to finish.
        propagation: Seconds in which others hear that a service leaves.
        wait: Seconds that services of other programs have to answer, if they are needed.
        stop: Ends it when set; at once before all are ready. None: SIGTERM or SIGINT does, and
            a second one at once; only in the main thread, where signals arrive.
        task_status: Told the runs when all are ready, by ``await tasks.start(...)``.

    Raises:
        ValueError: No service, two of one name, or a value is out of its range.
        TypeError: One is no Service.
        CycleError: They need each other.
        TimeoutExceededError: A service that is needed has not answered in time.

    Cancellation: abandons what runs, as leaving a run by an error does.

    Example::

        await run_services([users, orders], Broker("redis://localhost"))
    """
    terms: dict[str, Any] = {"grace": grace, "propagation": propagation, "wait": wait}
    runs = tuple(each.run(broker, registry, **terms) for each in in_order(services))
    closed = [each for each in (broker, registry) if each is not None and not each.is_open]
    try:
        async with create_task_group() as tasks:
            ending, ready = stop or _ending_by_signal(tasks), Event()
            tasks.start_soon(_give_up, ending, ready, tasks)
            async with AsyncExitStack() as stack:
                await _enter(stack, (*closed, *runs))
                ready.set()
                task_status.started(runs)
                await ending.wait()
            tasks.cancel_scope.cancel()
    except BaseExceptionGroup as errors:
        raise_bare(errors)


def in_order(services: Iterable[Service]) -> tuple[Service, ...]:
    """Return services so that each stands behind those of them that it needs.

    Those that do not need each other keep their order.

    Raises:
        ValueError: No service, or two of one name.
        TypeError: One is no Service.
        CycleError: They need each other.
    """
    given = [instance("services", each, Service, "Services") for each in services]
    by_name = {each.name: each for each in given}
    if not given or len(by_name) < len(given):
        names = [each.name for each in given]
        msg = f"services must be one service or several of different names, not {names!r}"
        raise ValueError(msg)
    placed: dict[str, Service] = {}
    for each in given:
        _place(each, by_name, placed, ())
    return (*placed.values(),)


def _place(
    service: Service,
    by_name: Mapping[str, Service],
    placed: dict[str, Service],
    path: tuple[str, ...],
) -> None:
    """Place a service behind all that it needs; ``path`` is who needs it."""
    if service.name in path:
        raise CycleError(path=(*path[path.index(service.name) :], service.name))
    for name in service.needs:
        if name in by_name and name not in placed:
            _place(by_name[name], by_name, placed, (*path, service.name))
    placed.setdefault(service.name, service)


async def _enter(stack: AsyncExitStack, owners: Iterable[Lifecycle]) -> None:
    for each in owners:
        await stack.enter_async_context(each)


def _ending_by_signal(tasks: TaskGroup) -> Event:
    """Return an event that a signal sets; a second one ends all at once."""
    ending = Event()
    tasks.start_soon(_obey, ending, tasks)
    return ending


async def _obey(ending: Event, tasks: TaskGroup) -> None:
    with open_signal_receiver(signal.SIGTERM, signal.SIGINT) as signals:
        async for _ in signals:
            if ending.is_set():
                tasks.cancel_scope.cancel()
            ending.set()


async def _give_up(ending: Event, ready: Event, tasks: TaskGroup) -> None:
    """End all at once if they still start when they are to end."""
    await ending.wait()
    if not ready.is_set():
        tasks.cancel_scope.cancel()
