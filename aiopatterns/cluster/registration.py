"""One registration: a record that lives as long as its process renews it.

::

    claim an epoch --> put --> renew every ttl/3 --+--> left  (the block ends: a last put)
                        ^                          |
                        `---- the backend was away-+--> lost  (a newer process has this id)

One task does all the writing, so what is told last is what was wanted last. ``set_state`` and the
end of the block only say what they want, ring, and wait.

The *epoch* is the fence of every put. It is a token of a lease named after the instance, drawn
anew for each registration, and above that of a record that lives: so the newest process that
takes an id has the highest, whatever the clocks of the hosts say, and nothing that an older one
sends later counts. Its next renewal is refused, and it knows that it is lost.

Guarantees:

* A process that dies is gone when its ttl is over; it need not do anything for that.
* A put that fails is repeated, from 0.1 s on, with backoff. When the backend is back the record is
  as well, also if the server has lost all it had, or this process stood still for longer than ttl.
* Saying goodbye is a record as well, ``left``, which expires by itself. So whoever looks can tell
  who has gone from who has lapsed.

Not guaranteed: that a process which stands still knows in time that it is not listed any more;
callers may come until they have looked.

Source: Gray and Cheriton, "Leases", SOSP 1989; the fence is that of Kleppmann, "How to do
distributed locking", 2016.
"""

from __future__ import annotations

import math
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Final, Literal, TypeAlias, final

from anyio import CancelScope, move_on_after
from anyio import Event as Bell

from aiopatterns.cluster.contact import AGAIN
from aiopatterns.cluster.instance import InstanceState
from aiopatterns.cluster.record import LEFT, read, written
from aiopatterns.core.clock import monotonic, rng, sleep
from aiopatterns.core.errors import BackendError, ClosedError, CodecError
from aiopatterns.core.telemetry import Event, emit, listening
from aiopatterns.core.validate import choice
from aiopatterns.core.waiters import Waiters

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType
    from typing import Self

    from anyio.abc import TaskGroup

    from aiopatterns.backends.protocols import Backend, Held
    from aiopatterns.cluster.contact import Contact
    from aiopatterns.cluster.instance import ServiceInstance

__all__ = [
    "FAREWELL",
    "Desk",
    "Registration",
    "RegistrationRestored",
    "RegistrationStatistics",
    "RegistrationSuperseded",
    "State",
    "directory_name",
]

State: TypeAlias = Literal["starting", "ready", "draining"]

#: Seconds that leaving waits for the backend.
FAREWELL: Final = 1.0
# Renewals in one ttl, and the share by which each interval varies, so that they spread.
_RENEWALS: Final = 3
_JITTER: Final = 0.1
# Seconds that two processes which take one id at the same time may wait for each other.
_CLAIM: Final = 2.0
_CLAIM_AGAIN: Final = 0.02


@dataclass(frozen=True, slots=True)
class RegistrationSuperseded(Event):
    """A newer process has registered the same id: this registration is over.

    Args:
        service: Of which service.
        id: Which instance.
    """

    name: ClassVar[str] = "aiopatterns.registry.superseded"
    level: ClassVar[str] = "warning"

    service: str
    id: str


@dataclass(frozen=True, slots=True)
class RegistrationRestored(Event):
    """The lease had run out, or may have, and the record is there.

    Args:
        service: Of which service.
        id: Which instance.
        seconds: Since the last renewal before.
    """

    name: ClassVar[str] = "aiopatterns.registry.restored"
    level: ClassVar[str] = "warning"

    service: str
    id: str
    seconds: float


@final
@dataclass(frozen=True, slots=True)
class RegistrationStatistics:
    """What a registration has done so far.

    Attributes:
        registered: Whether the lease has not run out, as far as this process knows.
        lost: Whether a newer process has taken the id.
        epoch: The fence of this registration.
        renewals: Puts that the backend has taken.
        failures: Puts that failed.
        restored: How often the lease had run out before a renewal, or may have.
        age: Seconds since the last renewal.
    """

    registered: bool
    lost: bool
    epoch: int
    renewals: int
    failures: int
    restored: int
    age: float


@final
class Desk:
    """What all registrations of one registry share.

    Args:
        backend: Where they are.
        contact: Told whether it answers.
        ttl: Seconds of a lease.
        propagation: Seconds that one who leaves is draining.
        open_group: Returns if the registry is open, else raises.
    """

    __slots__ = ("backend", "contact", "open_group", "propagation", "registered", "tasks", "ttl")

    def __init__(
        self,
        backend: Backend,
        contact: Contact,
        *,
        ttl: float,
        propagation: float,
        open_group: Callable[[], object],
    ) -> None:
        self.backend: Backend = backend
        self.contact: Contact = contact
        self.ttl: float = ttl
        self.propagation: float = propagation
        self.open_group: Callable[[], object] = open_group
        self.tasks: TaskGroup | None = None
        self.registered: dict[tuple[str, str], Registration] = {}

    def running(self) -> TaskGroup:
        """Return where the background tasks of the registry run.

        Raises:
            ClosedError: It is not open, or closes just now.
        """
        self.open_group()
        if self.tasks is None:
            msg = "the registry is closing; nothing can be begun any more"
            raise ClosedError(msg)
        return self.tasks

    def admit(self, registration: Registration) -> TaskGroup:
        """Note a registration that begins; return where its task runs."""
        tasks = self.running()
        who = registration.instance
        if self.registered.setdefault((who.service, who.id), registration) is not registration:
            msg = (
                f"instance {who.id!r} of service {who.service!r} is registered by this registry"
                " already; each needs an id of its own"
            )
            raise ValueError(msg)
        return tasks

    def release(self, registration: Registration) -> None:
        """Forget a registration."""
        who = registration.instance
        if self.registered.get((who.service, who.id)) is registration:
            del self.registered[who.service, who.id]


@final
class Registration:
    """One instance in the registry; made by ``registry.register(...)``, entered by ``async with``.

    When the block is entered the record is there. When it ends normally the instance is draining
    for a while and leaves then; by an error or a cancellation it leaves at once. It can be entered
    once.

    Args:
        instance: Who registers.
        state: What is told first.
        desk: The registry's side.
    """

    __slots__ = (
        "_at",
        "_begun",
        "_bell",
        "_desk",
        "_directory",
        "_epoch",
        "_failures",
        "_lost",
        "_over",
        "_refusal",
        "_renewals",
        "_restored",
        "_scope",
        "_state",
        "_told",
        "_waiters",
        "_wanted",
        "instance",
    )

    def __init__(self, instance: ServiceInstance, *, state: State, desk: Desk) -> None:
        self.instance: ServiceInstance = instance
        self._state = _state(state)
        self._desk = desk
        self._directory = desk.backend.directory(directory_name(instance.service))
        self._epoch = 0
        self._wanted = self._told = 0  # how many changes of state were asked for, and told
        self._at = -math.inf  # when the last put that was taken was sent
        self._renewals = self._failures = self._restored = 0
        self._lost = False
        self._bell = Bell()
        self._waiters = Waiters()
        self._scope: CancelScope | None = None
        self._begun, self._over = Bell(), Bell()
        self._refusal: BackendError | None = None

    async def __aenter__(self) -> Self:
        """Register.

        Raises:
            ValueError: The registry has registered this id of this service already.
            ClosedError: The registry is not open.
            RuntimeError: This registration was entered before.
            BackendError: The backend does not answer, or refuses.

        Cancellation: the record is taken back, or its life is left to end.
        """
        if self._scope is not None:
            msg = "this registration was entered before; make one with registry.register(...)"
            raise RuntimeError(msg)
        tasks = self._desk.admit(self)
        self._scope = CancelScope()
        tasks.start_soon(self._run)
        try:
            await self._begun.wait()
            self._require_begun()
        except BaseException:
            await self._leave()
            self._desk.release(self)
            raise
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave: after draining if the block ended normally, else at once."""
        try:
            if exc is None:
                await self._drain()
        finally:
            await self._leave()
            self._desk.release(self)

    @property
    def state(self) -> InstanceState:
        """The state that was asked for last."""
        return self._state

    @property
    def lost(self) -> bool:
        """Whether a newer process has taken the id; this one is not listed any more, ever."""
        return self._lost

    def statistics(self) -> RegistrationStatistics:
        """Return the figures so far."""
        age = monotonic() - self._at
        return RegistrationStatistics(
            registered=not self._is_over and age < self._desk.ttl,
            lost=self._lost,
            epoch=self._epoch,
            renewals=self._renewals,
            failures=self._failures,
            restored=self._restored,
            age=age,
        )

    async def set_state(self, state: State) -> None:
        """Tell all who look that this instance is starting, ready or draining.

        Returns when the backend has it; while that is away, this waits until it is back.

        Raises:
            ValueError: There is no such state.
            ClosedError: The block has not begun or is over, or a newer process has taken the id.

        Cancellation: the state is told nevertheless, as soon as that can be done.
        """
        asked = _state(state)
        self._require_listed()
        self._state = asked
        self._wanted += 1
        self._bell.set()
        wanted = self._wanted
        while self._told < wanted:
            self._require_listed()
            await self._waiters.wait(lost=self._waiters.wake_all)

    async def wait_lost(self) -> None:
        """Wait until a newer process has taken the id; then it is time to go.

        Raises:
            ClosedError: The block has not begun, or is over.
        """
        while not self._lost:
            self._require_listed()
            await self._waiters.wait(lost=self._waiters.wake_all)

    def nudge(self) -> None:
        """Renew now: the backend may have lost the record."""
        self._bell.set()

    # ------------------------------------------------------------------------ private core

    async def _run(self) -> None:
        """Register, renew until told to leave or superseded, then say goodbye."""
        assert self._scope is not None
        try:
            with self._scope:
                await self._begin()
                self._begun.set()
                await self._renew()
        except BackendError as error:
            self._refusal = error
        finally:
            self._begun.set()
            try:
                with move_on_after(FAREWELL, shield=True), suppress(BackendError):
                    await self._say_goodbye()
            finally:  # also if a host cancels all tasks twice: who leaves waits for this
                self._over.set()
                self._waiters.wake_all()

    def _require_begun(self) -> None:
        """Raise what kept this registration from beginning."""
        if self._refusal is not None:
            raise self._refusal
        if not self._renewals and not self._lost:
            msg = f"the registry was closed while {self.instance.id!r} registered"
            raise ClosedError(msg)

    async def _drain(self) -> None:
        """Tell that callers should go elsewhere, and wait for them to hear it."""
        if not self._desk.propagation or self._is_over:
            return
        with move_on_after(FAREWELL), suppress(ClosedError):
            await self.set_state("draining")
        await sleep(self._desk.propagation)

    async def _leave(self) -> None:
        """Leave; returns when that is told, or could not be within :data:`FAREWELL`."""
        assert self._scope is not None
        self._scope.cancel()
        with CancelScope(shield=True):
            await self._over.wait()

    @property
    def _is_over(self) -> bool:
        return self._lost or self._over.is_set()

    def _require_listed(self) -> None:
        if self._scope is None:
            msg = (
                f"{self.instance.id!r} is not registered yet; use it inside"
                " 'async with registry.register(...) as registration:'"
            )
            raise ClosedError(msg)
        if self._is_over:
            why = "a newer process has taken its id" if self._lost else "its block is over"
            who = self.instance
            msg = f"{who.id!r} is not registered in {who.service!r} any more: {why}"
            raise ClosedError(msg)

    async def _begin(self) -> None:
        """Claim an epoch and put the record."""
        held = await self._claim()
        self._epoch = max(held.token, await self._living_epoch() + 1)
        await self._put()
        with suppress(BackendError):  # it ends by itself
            await held.release()

    async def _claim(self) -> Held:
        """Get the lease whose token is an epoch that nobody else has."""
        who = self.instance
        lease = self._desk.backend.lease(f"{directory_name(who.service)}:{who.id}")
        while (held := await lease.try_acquire(ttl=_CLAIM)) is None:
            await sleep(_CLAIM_AGAIN)
        return held

    async def _living_epoch(self) -> int:
        """Return the epoch of the record that is replaced, for the clocks of servers may go back."""
        who = self.instance
        members = (await self._directory.snapshot()).members
        with suppress(KeyError, CodecError):
            return read(who.service, who.id, members[who.id]).epoch
        return -1

    async def _renew(self) -> None:
        """Put the record again and again; returns when that was refused."""
        failures = 0
        while not self._lost:
            await self._pause(failures)
            try:
                await self._put()
                failures = 0
            except BackendError as error:
                failures += 1
                self._failures += 1
                self._desk.contact.failed(error)

    async def _pause(self, failures: int) -> None:
        """Wait until it is time for the next put, or until something is to be told."""
        if failures:
            seconds = min(AGAIN.delay(failures, rng=rng()), self._desk.ttl / _RENEWALS)
        else:
            seconds = self._desk.ttl / _RENEWALS * (1 + _JITTER * (2 * rng().random() - 1))
        with move_on_after(seconds):
            await self._bell.wait()
        self._bell = Bell()

    async def _put(self) -> None:
        """Put the record as it is wanted now."""
        wanted, sent = self._wanted, monotonic()
        data = written(self.instance, self._state.value, epoch=self._epoch)
        who = self.instance
        kept = await self._directory.put(who.id, data, ttl=self._desk.ttl, fence=self._epoch)
        self._desk.contact.answered()
        if kept:
            self._kept(wanted, sent)
        else:
            self._lose()
        self._waiters.wake_all()

    def _kept(self, wanted: int, sent: float) -> None:
        """The backend has the record as it was wanted when it was sent."""
        away, self._at = monotonic() - self._at, sent
        self._told = wanted
        self._renewals += 1
        if self._renewals > 1 and away > self._desk.ttl:
            self._restored += 1
            if listening():
                emit(RegistrationRestored(self.instance.service, self.instance.id, away))

    def _lose(self) -> None:
        """A newer process has the id; nothing is sent any more."""
        self._lost = True
        if listening():
            emit(RegistrationSuperseded(self.instance.service, self.instance.id))

    async def _say_goodbye(self) -> None:
        """Put the record of one that has left, unless there was none, or it is another's now."""
        if self._epoch and not self._lost:
            who = self.instance
            data = written(who, LEFT, epoch=self._epoch)
            await self._directory.put(who.id, data, ttl=self._desk.ttl, fence=self._epoch)


def directory_name(service: str) -> str:
    """Return the name of the directory in which the instances of ``service`` stand."""
    return f"svc:{service}"


def _state(value: State) -> InstanceState:
    return InstanceState(choice("state", value, ("starting", "ready", "draining")))
