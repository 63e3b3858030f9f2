"""Host: one run of a service, from its beginning to its end, in one task.

::

    broker, checker, lifespan --> needs answer --> subscribe, register --> READY
                                                                             |  answers about itself
                                                                             |  told to stop
    lifespan ends <-- cut off <-- grace <-- refuse new <-- propagation <-- DRAINING
                                                           (unlisted everywhere)

The lifespan is entered first and left last, in this task, so it may hold task groups and scopes.
"""

from __future__ import annotations

from contextlib import AsyncExitStack
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any, Final, final

from anyio import (
    CancelScope,
    Event,
    create_task_group,
    current_effective_deadline,
    current_time,
    move_on_after,
)

from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.context import forget_deadline, new_id
from aiopatterns.core.errors import (
    BackendError,
    NoHandlersError,
    RejectedError,
    RemoteError,
    TimeoutExceededError,
)
from aiopatterns.core.lifecycle import raise_bare
from aiopatterns.core.telemetry import emit, listening
from aiopatterns.messaging.endpoint import Endpoint, Scene
from aiopatterns.messaging.introspection import Introspection, ping_topic
from aiopatterns.messaging.readiness import follow, standing
from aiopatterns.messaging.serviceevents import ServiceDraining, ServiceStarted, ServiceStopped
from aiopatterns.messaging.servicerecords import ServiceState, ServiceStatistics
from aiopatterns.messaging.ticking import tick

if TYPE_CHECKING:
    from anyio.abc import TaskGroup, TaskStatus

    from aiopatterns.cluster.health import HealthChecker
    from aiopatterns.cluster.instance import ServiceInstance
    from aiopatterns.cluster.registry import ServiceRegistry
    from aiopatterns.messaging.broker import Broker, BrokerSubscription
    from aiopatterns.messaging.service import Service

__all__ = ["Host", "Staging"]

#: Seconds that calls have to come to their end after they were cancelled.
LAST: Final = 1.0
#: Seconds that the lifespan of a run that was cancelled has to close what it opened.
EXIT_WITHIN: Final = 5.0
#: Seconds that leaving waits for the backend, when it is cancelled.
FAREWELL: Final = 0.5
#: Seconds that others have to be told by the backend that this replica leaves.
TOLD_WITHIN: Final = 1.0
# Seconds to wait for the answer of a service that is needed, and between two questions.
_ANSWER: Final = 1.0
_ASK_AGAIN: Final = (0.02, 0.5)


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Staging:
    """What a service runs with.

    Attributes:
        broker: Where it listens; opened with the run if it is closed.
        registry: Where it registers, or None; opened with the run if it is closed.
        instance: As what it registers, or None.
        checker: Its health checks, or None; opened with the run if it is closed.
        grace: Seconds that calls have to finish.
        propagation: Seconds in which others hear that it leaves.
        wait: Seconds that the services it needs have to answer.
    """

    broker: Broker
    registry: ServiceRegistry | None
    instance: ServiceInstance | None
    checker: HealthChecker | None
    grace: float
    propagation: float
    wait: float


@final
class Host:
    """One run of a service.

    Args:
        service: What runs.
        staging: What it runs with.
    """

    __slots__ = (
        "_borrowed",
        "_exit",
        "_scene",
        "_service",
        "_since",
        "_staging",
        "_stopping",
        "_subscriptions",
        "_ticked",
        "_ticking",
        "endpoints",
        "gone",
        "id",
        "state",
    )

    def __init__(self, service: Service, staging: Staging) -> None:
        self.id: str = new_id() if staging.instance is None else staging.instance.id
        self.state: ServiceState = ServiceState.STARTING
        self.gone: Event = Event()
        self._service = service
        self._staging = staging
        self._scene = Scene(service.name, staging.broker, service.upcasters)
        self._borrowed = True  # the broker is open around this run
        self._exit = CancelScope()  # around all, for the lifespan to close in
        self._stopping = Event()
        self._subscriptions: list[BrokerSubscription] = []
        self._ticking = 0  # timers that have not ended
        self._ticked = Event()
        self._since = monotonic()
        self.endpoints: tuple[Endpoint, ...] = ()

    def statistics(self) -> ServiceStatistics:
        """Return the figures so far."""
        return ServiceStatistics(
            self._service.name,
            self.id,
            self.state,
            0.0 if self.state is ServiceState.STOPPED else monotonic() - self._since,
            {each.name: each.statistics() for each in self.endpoints},
        )

    def stop(self) -> None:
        """Begin to drain; harmless if that was begun already."""
        self._stopping.set()

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Start, serve until told to stop, drain and leave; or leave at once when cancelled."""
        forget_deadline()  # of whoever opens it: it is here for all
        try:
            with self._exit:
                async with AsyncExitStack() as stack:
                    await self._tour(stack, task_status)
        finally:
            self.state = ServiceState.STOPPED
            self.gone.set()
            self._report()

    async def _tour(self, stack: AsyncExitStack, task_status: TaskStatus[None]) -> None:
        """Open, serve and leave; what was opened is closed by ``stack``, after this."""
        try:
            await self._open(stack)
            await self._live(task_status)
        except BaseExceptionGroup as errors:
            raise_bare(errors)
        finally:
            await self._leave()

    # ------------------------------------------------------------------------------ beginning

    async def _open(self, stack: AsyncExitStack) -> None:
        """Open what is closed, enter the lifespan, and wait for what is needed."""
        staging = self._staging
        self._borrowed = staging.broker.is_open
        for owner in (staging.broker, staging.registry, staging.checker):
            if owner is not None and not owner.is_open:
                await stack.enter_async_context(owner)
        state: Any = None
        if self._service.lifespan is not None:
            state = await stack.enter_async_context(self._service.lifespan())
        self._scene.state = {} if state is None else state
        for name in self._service.needs:
            await self._await_service(name)

    async def _await_service(self, name: str) -> None:
        """Return when a service answers.

        Raises:
            TimeoutExceededError: It has not, in time.
        """
        pause, longest = _ASK_AGAIN
        topic, wait = ping_topic(name), self._staging.wait
        with move_on_after(wait):
            while not await self._answers(topic):
                await sleep(pause)
                pause = min(pause * 2, longest)
            return
        msg = f"service {self._service.name!r} needs {name!r}, which has not answered in {wait:g} s"
        raise TimeoutExceededError(msg, timeout=wait)

    async def _answers(self, topic: str) -> bool:
        try:
            await self._staging.broker.request(topic, timeout=_ANSWER)
        except (NoHandlersError, TimeoutExceededError, RemoteError, RejectedError, BackendError):
            return False
        return True

    async def _live(self, task_status: TaskStatus[None]) -> None:
        """Subscribe, serve, drain."""
        async with create_task_group() as tasks:
            await self._subscribe()
            async with AsyncExitStack() as registered:
                await self._register(registered, tasks)
                self.state = ServiceState.READY
                await self._introduce()
                self._begin(tasks)
                task_status.started()
                await self._stopping.wait()
                self._note_draining()
            await self._drain()
            tasks.cancel_scope.cancel()

    async def _subscribe(self) -> None:
        """Put all handlers in force."""
        service, broker = self._service, self._staging.broker
        self.endpoints = tuple(
            Endpoint(each.name, each.tag, each.plan(service.stack), self._scene)
            for each in service.handlers
        )
        for endpoint, handler in zip(self.endpoints, service.handlers, strict=True):
            tag = endpoint.tag
            if tag.kind != "timer":
                endpoint.place = await broker.subscribe(
                    tag.topic,
                    endpoint.handle,
                    group=handler.group,
                    concurrency=tag.concurrency,
                    key=tag.key,
                    answers=tag.kind != "event",
                )
                self._subscriptions.append(endpoint.place)

    async def _introduce(self) -> None:
        """Let it answer about itself; who is answered takes it for ready."""
        service, broker = self._service, self._staging.broker
        about = Introspection(service.version, service.needs, service.handlers, self.statistics)
        for pattern, group in about.patterns(service.name, self.id):
            place = await broker.subscribe(pattern, about.answer, group=group)
            self._subscriptions.append(place)

    async def _register(self, stack: AsyncExitStack, tasks: TaskGroup) -> None:
        staging = self._staging
        if staging.registry is None:
            return
        assert staging.instance is not None, "one is made for every registry"
        state = standing(staging.checker)
        registration = staging.registry.register(staging.instance, state=state)
        await stack.enter_async_context(registration)
        if staging.checker is not None:
            tasks.start_soon(follow, staging.checker, registration, self._stopping)

    def _begin(self, tasks: TaskGroup) -> None:
        for endpoint in self.endpoints:
            if endpoint.tag.kind == "timer":
                self._ticking += 1
                tasks.start_soon(self._tick, endpoint)
        if listening():
            emit(ServiceStarted(self._service.name, self.id))

    async def _tick(self, endpoint: Endpoint) -> None:
        try:
            await tick(self._service.name, endpoint, self._stopping)
        finally:
            self._ticking -= 1
            if not self._ticking:
                self._ticked.set()

    # ----------------------------------------------------------------------------------- end

    def _note_draining(self) -> None:
        self.state = ServiceState.DRAINING
        if listening():
            emit(ServiceDraining(self._service.name, self.id))

    async def _drain(self) -> None:
        """Be told no more, finish what is there within the grace, and cut off what is left."""
        await self._close(self._staging.propagation)
        with move_on_after(self._staging.grace):
            await self._quiet()
        self._scene.cut()
        with move_on_after(LAST):
            await self._quiet()

    async def _leave(self) -> None:
        """Cut off what is left; be gone from the broker, within a bounded time."""
        self._scene.cut()
        # A broker of our own is leaving as well: it tells for all, or is cancelled and cannot.
        with move_on_after(FAREWELL if self._borrowed else 0.0, shield=True):
            await self._close(0.0)
            await self._quiet()
        if current_effective_deadline() == -inf:  # cancelled: the lifespan may close yet
            self._exit.deadline = current_time() + EXIT_WITHIN
            self._exit.shield = True

    async def _close(self, propagation: float) -> None:
        """Close all subscriptions at once; a backend that is away is not waited for."""
        with move_on_after(propagation + TOLD_WITHIN):
            await self._close_all(propagation)

    async def _close_all(self, propagation: float) -> None:
        async with create_task_group() as tasks:
            for each in self._subscriptions:
                tasks.start_soon(each.close, propagation)

    async def _quiet(self) -> None:
        """Wait until nothing waits and nothing runs."""
        for each in self._subscriptions:
            await each.quiet()
        if self._ticking:
            await self._ticked.wait()

    def _report(self) -> None:
        if listening():
            figures = self.statistics()
            emit(
                ServiceStopped(
                    figures.service, figures.id, figures.done, figures.failed, figures.cancelled
                )
            )
