"""ServiceRegistry: which instances of a service are alive, where, and which of them want calls.

::

    a process that serves                     the backend                  a process that calls
    register(instance) -- put, renew -->  directory svc:users  -- watch --> Snapshot, Snapshot, ...
        set_state("draining") -- put -->   lives by its own time   `------> instances("users")

A registration lives as long as it is renewed, by the clock of the server alone; see
:mod:`aiopatterns.cluster.registration`. Readers get the whole of a service each time, never
deltas, so nothing that was missed stays missed; see :mod:`aiopatterns.cluster.book`.

Guarantees:

* A process that is killed is gone from every snapshot ``ttl`` + ``interval`` seconds later.
* A process that was replaced, by one with the same id, can neither renew nor remove what the new
  one has put.
* An outage of the backend is no outage of the services: readers go on with the last that was
  known, which tells its age, and registrations come back by themselves.
* When many lapse at once they are kept, as ``stale``: :mod:`aiopatterns.cluster.preservation`.

Not guaranteed: that who is listed answers. A registry knows who renews; whether calls succeed is
seen by those who call, and a balancer heeds both.

Source: leases and self-preservation as in Eureka, snapshots with a revision as in etcd and Consul.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Final, final

from anyio import TASK_STATUS_IGNORED, create_task_group, move_on_after, sleep_forever

from aiopatterns.backends.opening import resolve
from aiopatterns.cluster.book import Book
from aiopatterns.cluster.contact import Contact
from aiopatterns.cluster.feed import Feed, ServiceWatch
from aiopatterns.cluster.instance import ServiceInstance, service_name
from aiopatterns.cluster.preservation import RATIO
from aiopatterns.cluster.registration import Desk, Registration, directory_name
from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.errors import BackendError
from aiopatterns.core.lifecycle import Owner, OwnerState, raise_bare
from aiopatterns.core.validate import in_range, non_negative, optional_positive, positive
from aiopatterns.core.validate import instance as checked

if TYPE_CHECKING:
    from anyio.abc import TaskGroup, TaskStatus

    from aiopatterns.backends.protocols import Backend
    from aiopatterns.backends.records import Members
    from aiopatterns.cluster.registration import State
    from aiopatterns.cluster.snapshot import Snapshot

__all__ = ["RegistryStatistics", "ServiceRegistry"]

#: Seconds of a lease.
TTL: Final = 15.0
#: Seconds after which a watch looks by itself, if no live message came.
INTERVAL: Final = 1.0
# A channel of which only the gaps matter, and the seconds until it is subscribed to again.
_SILENCE: Final = "svc"
_LISTEN_AGAIN: Final = 1.0


@final
@dataclass(frozen=True, slots=True)
class RegistryStatistics:
    """What a registry of one process does at this moment.

    Attributes:
        connected: Whether the backend answered when it was last asked.
        registrations: Instances that this process has registered.
        watched: Services that this process watches.
        stale: Instances that are kept though they lapsed, over all services.
        malformed: Records that could not be read, each counted once.
        interruptions: How often the backend stopped to answer.
    """

    connected: bool
    registrations: int
    watched: int
    stale: int
    malformed: int
    interruptions: int


@final
class ServiceRegistry(Owner):
    """Registers instances and finds those of others.

    Args:
        backend: Where the records are, a backend or a URL; opened with the registry.
        ttl: Seconds after which an instance that does not renew is gone. The same for all who
            share the backend.
        interval: Seconds after which a watch looks by itself, if no live message came.
        propagation: Seconds that an instance which leaves waits, draining, for callers to hear of
            it; None for ``interval``, 0 to leave at once.
        max_stale: Seconds for which the last good snapshot is good enough when the backend does
            not answer; None for as long as it takes.
        preservation: Share of the known instances that must remain for a lapse of several to be
            believed; 0 believes every lapse.
        name: How events and errors call this registry.

    Raises:
        ValueError: A value is out of its range.
        TypeError: A value is of another type.

    Example::

        async with ServiceRegistry("redis://localhost:6379") as registry:
            async with registry.register(ServiceInstance("users", "10.0.0.1", 8000)):
                await serve()
    """

    __slots__ = (
        "_backend",
        "_books",
        "_desk",
        "_feeds",
        "_interval",
        "_malformed",
        "_max_stale",
        "_preservation",
        "_reading",
        "_ttl",
        "_writing",
    )

    def __init__(
        self,
        backend: Backend | str,
        *,
        ttl: float = TTL,
        interval: float = INTERVAL,
        propagation: float | None = None,
        max_stale: float | None = None,
        preservation: float = RATIO,
        name: str = "registry",
    ) -> None:
        super().__init__(name)
        self._backend = resolve(backend)
        self._ttl = positive("ttl", ttl)
        self._interval = positive("interval", interval)
        if propagation is None:
            propagation = interval
        self._max_stale = optional_positive("max_stale", max_stale)
        self._preservation = in_range("preservation", preservation, 0.0, 1.0)
        self._reading, self._writing = Contact(name, "reading"), Contact(name, "writing")
        self._desk = Desk(
            self._backend,
            self._writing,
            ttl=ttl,
            propagation=non_negative("propagation", propagation),
            open_group=self._open_group,
        )
        self._books: dict[str, Book] = {}
        self._feeds: dict[str, Feed] = {}
        self._malformed = 0  # in books that were closed

    def register(self, instance: ServiceInstance, *, state: State = "ready") -> Registration:
        """Register ``instance`` for the time of a block.

        Args:
            instance: Who serves what, and where.
            state: ``"starting"`` for one that wants no calls yet.

        Returns:
            The registration, to be entered by ``async with``; that raises ``ValueError`` if this
            registry has registered the id already, ``ClosedError`` if it is not open, and
            ``BackendUnavailableError`` if the backend does not answer. Later that ends nothing.

        Raises:
            TypeError: ``instance`` is no ServiceInstance.
            ValueError: There is no such state.

        Example::

            async with registry.register(instance, state="starting") as registration:
                await warm_up()
                await registration.set_state("ready")
        """
        checked("instance", instance, ServiceInstance, "a ServiceInstance")
        return Registration(instance, state=state, desk=self._desk)

    async def instances(self, service: str) -> Snapshot:
        """Return the instances of ``service``; 1 round trip.

        If the backend does not answer within ``interval``, or fails, this returns the last good
        snapshot, whose ``age`` tells how old it is. Without one it waits for the backend.

        Args:
            service: Its name. One that nobody registered has an empty snapshot.

        Raises:
            ValueError: ``service`` can be no name.
            ClosedError: The registry is not open.
            BackendError: The backend does not answer, and nothing is known, or what is known is
                older than ``max_stale``.

        Complexity: O(n).
        """
        self._open_group()
        known, asked = self._last_good(service_name("service", service)), monotonic()
        try:
            with move_on_after(math.inf if known is None else self._interval):
                members = await self._backend.directory(directory_name(service)).snapshot()
                self._reading.answered()
                return self._taken(service, members, asked)
        except BackendError as error:
            self._reading.failed(error)
            if known is None:
                raise
        assert known is not None, "without one nothing cuts the question short"
        return self._last_good(service) or known

    def watch(self, service: str) -> ServiceWatch:
        """Watch ``service``: an ``async with`` block that gives an async iterator of snapshots.

        The newest only: the first at once, then one for each change. All watches of a service in
        this registry share one of the backend. While the backend does not answer, nothing is new,
        and the first is the last good snapshot, if there is one.

        Raises:
            ValueError: ``service`` can be no name.

        Example::

            async with registry.watch("users") as snapshots:
                async for snapshot in snapshots:
                    use(snapshot.instances)
        """
        service_name("service", service)
        return ServiceWatch(partial(self._attach, service), partial(self._detach, service))

    @property
    def opening(self) -> object:
        """What is another object each time that the registry is opened.

        Raises:
            ClosedError: It is not open.
        """
        return self._open_group()

    @property
    def services(self) -> frozenset[str]:
        """Names of the services that this process registers, or watches, now."""
        registered = {each.instance.service for each in self._desk.registered.values()}
        return frozenset(registered | self._feeds.keys())

    def statistics(self) -> RegistryStatistics:
        """Return what this registry does now."""
        books = self._books.values()
        return RegistryStatistics(
            connected=self.state is OwnerState.RUNNING and self._reading.up and self._writing.up,
            registrations=len(self._desk.registered),
            watched=len(self._feeds),
            stale=sum(len(book.snapshot.stale) for book in books),
            malformed=self._malformed + sum(book.malformed for book in books),
            interruptions=self._reading.interruptions + self._writing.interruptions,
        )

    # --------------------------------------------------------------------------- private core

    async def _start(self, tasks: TaskGroup) -> None:
        await tasks.start(self._run)

    async def _run(self, *, task_status: TaskStatus[None] = TASK_STATUS_IGNORED) -> None:
        """Hold the backend open around all that needs it: goodbyes are said before it closes."""
        try:
            async with self._backend, create_task_group() as tasks:
                self._desk.tasks = tasks
                tasks.start_soon(self._heed_gaps)
                task_status.started()
                try:
                    await sleep_forever()
                finally:
                    self._desk.tasks = None
        except BaseExceptionGroup as errors:
            raise_bare(errors)

    def _settle(self) -> None:
        self._desk.registered.clear()
        for feed in self._feeds.values():
            feed.close()
        self._feeds.clear()
        for service in [*self._books]:
            self._close_book(service)

    async def _heed_gaps(self) -> None:
        """Hear when the connection was lost: on a channel on which nobody speaks.

        If that is refused, lost records only come back later, with their next renewals.
        """
        while True:
            subscription = self._backend.pubsub.subscribe(_SILENCE, on_gap=self._missed)
            with suppress(BackendError):
                async with subscription as silence:
                    await anext(silence, None)
            await sleep(_LISTEN_AGAIN)

    def _missed(self) -> None:
        """The server was away and may have lost what it had: renew, and doubt what it says."""
        for registration in self._desk.registered.values():
            registration.nudge()
        for service, book in self._books.items():
            changed = book.doubt()
            if (feed := self._feeds.get(service)) is not None:
                feed.heed(changed=changed)

    def _taken(self, service: str, members: Members, asked: float) -> Snapshot:
        """Enter what was read into the service's book."""
        book, feed = self._book(service), self._feeds.get(service)
        changed = book.take(members, asked=asked)
        if feed is None:
            if book.is_blank:  # nothing is lost: names of strangers fill no memory
                self._close_book(service)
        else:
            feed.heed(changed=changed)
        return book.snapshot

    def _last_good(self, service: str) -> Snapshot | None:
        """Return what was known last, if it is not too old."""
        if (feed := self._feeds.get(service)) is not None:
            feed.confirm()
        book = self._books.get(service)
        known = None if book is None else book.known
        if known is None or (self._max_stale is not None and known.age > self._max_stale):
            return None
        return known

    def _book(self, service: str) -> Book:
        book = self._books.get(service)
        if book is None:
            book = Book(service, ttl=self._ttl, ratio=self._preservation)
            self._books[service] = book
        return book

    def _close_book(self, service: str) -> None:
        self._malformed += self._books.pop(service).malformed

    def _attach(self, service: str, watch: ServiceWatch) -> Feed:
        """Give a watch the feed of its service; the first one starts it."""
        tasks = self._desk.running()
        feed = self._feeds.get(service)
        if feed is None:
            feed = self._feeds[service] = Feed(
                self._book(service), self._backend, self._reading, interval=self._interval
            )
            tasks.start_soon(feed.run)
        feed.watches.add(watch)
        return feed

    def _detach(self, service: str, watch: ServiceWatch) -> None:
        """Take a watch from its feed; the last one ends it."""
        feed = self._feeds.get(service)
        if feed is None or watch not in feed.watches:
            return
        feed.watches.discard(watch)
        if not feed.watches:
            feed.stop()
            del self._feeds[service]
            if feed.book.is_blank:
                self._close_book(service)
