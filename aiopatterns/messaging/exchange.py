"""Exchange: one run of a broker, from its ``async with`` to the end of it.

::

    request, send, publish --> routes: who? --> courier --> inbox of another broker
                                   |
                                   `-- this broker itself: at once, without the backend
    own inbox --> delivery --> intakes --> handler --> reply --> inbox of the requester
              `-> reply ----> requests --> whoever waits

All tasks of a run are in one group, and it ends in this order: no new messages from others, those
accepted are handled, replies are out, and only then is this broker gone from the directory.
"""

from __future__ import annotations

from contextlib import suppress
from contextvars import copy_context
from typing import TYPE_CHECKING, Any, Final, NamedTuple, final

from anyio import create_task_group, move_on_after

from aiopatterns.core.clock import monotonic, sleep
from aiopatterns.core.context import new_id
from aiopatterns.core.errors import (
    BackendError,
    ClosedError,
    CodecError,
    NoHandlersError,
    QueueFullError,
    TimeoutExceededError,
)
from aiopatterns.core.lifecycle import raise_bare
from aiopatterns.core.telemetry import emit, listening
from aiopatterns.messaging.brokerevents import BrokerFrameRefused, BrokerSubscriptionFailed
from aiopatterns.messaging.courier import COURIERS, Courier
from aiopatterns.messaging.draft import Draft
from aiopatterns.messaging.frames import Outcome, Reply, open_frame, pack_delivery, pack_reply
from aiopatterns.messaging.intake import Intake
from aiopatterns.messaging.listing import DIRECTORY, MOST, Listed, inbox_of, is_member
from aiopatterns.messaging.presence import Presence
from aiopatterns.messaging.remote import described, raised
from aiopatterns.messaging.requests import Requests
from aiopatterns.messaging.routes import KEEP, Routes
from aiopatterns.messaging.shipment import Notification, Shipment

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine

    from anyio.abc import TaskGroup, TaskStatus

    from aiopatterns.backends.protocols import Backend, Subscribed
    from aiopatterns.messaging.draft import Labels
    from aiopatterns.messaging.intake import Handler, SubscriptionStatistics, Terms
    from aiopatterns.messaging.message import Message
    from aiopatterns.messaging.requests import Pending
    from aiopatterns.messaging.routes import Place
    from aiopatterns.messaging.scribe import Scribe

__all__ = ["FAREWELL", "Exchange", "Totals"]

#: Seconds that leaving waits for the backend, to say goodbye.
FAREWELL: Final = 0.5
#: Frames that wait in the inbox at most, while the loop is busy elsewhere.
INBOX: Final = 100_000
#: Seconds between two tries while brokers come back after a lost connection.
_PAUSE: Final = 0.05
# A node of a cluster counts only those receivers that are connected to it.
_CLUSTER: Final = "redis+cluster:"
_NOBODY: Final[tuple[Place, ...]] = ()
# An empty frame: whoever sends one to itself sees whether it is heard.
_PROBE: Final = b""
# Decimal digits that surely fit the number of a request into 64 bits.
_DIGITS: Final = 19


@final
class Totals(NamedTuple):
    """What the subscriptions of a broker have done.

    Attributes:
        received: Messages that came.
        handled: Those whose handler returned.
        failed: Those whose handler raised.
        dropped: Those for which there was no room.
        expired: Those whose deadline was over before they were handled.
    """

    received: int = 0
    handled: int = 0
    failed: int = 0
    dropped: int = 0
    expired: int = 0

    def plus(self, one: SubscriptionStatistics) -> Totals:
        """Add the figures of a subscription."""
        return Totals(
            self.received + one.received,
            self.handled + one.handled,
            self.failed + one.failed,
            self.dropped + one.dropped,
            self.expired + one.expired,
        )


@final
class Exchange:
    """One run of a broker; made on the loop it runs on.

    Args:
        name: The broker's name.
        backend: Where the brokers meet.
        scribe: How messages are written.
    """

    __slots__ = (
        "_backend",
        "_base",
        "_counts",
        "_ended",
        "_ending",
        "_gap_at",
        "_ids",
        "_name",
        "_numbers",
        "_scribe",
        "_tasks",
        "closed",
        "courier",
        "gaps",
        "intakes",
        "member",
        "presence",
        "refused",
        "requests",
        "routes",
        "sent",
    )

    def __init__(self, name: str, backend: Backend, scribe: Scribe) -> None:
        self._name = name
        self._backend = backend
        self._scribe = scribe
        self.member: Final[str] = new_id()
        self.routes: Final[Routes] = Routes(self.member)
        self.requests: Final[Requests] = Requests()
        self.presence: Final[Presence] = Presence(
            name, backend.directory(DIRECTORY), self.routes, buried=self.requests.bury
        )
        self._counts = not backend.url.startswith(_CLUSTER)
        self.courier: Final[Courier] = Courier(
            backend.pubsub, counts=self._counts, failed=self.presence.lost
        )
        self.intakes: Final[dict[int, Intake]] = {}
        self.sent: int = 0
        self.refused: int = 0
        self.gaps: int = 0
        self.closed: bool = False
        self._numbers = self._ids = 0
        self._ending: list[Intake] = []  # subscriptions that were closed and still handle
        self._ended = Totals()
        self._gap_at = -KEEP
        self._base = copy_context()  # workers live in this one, whoever sends
        self._tasks: TaskGroup | None = None

    # ---------------------------------------------------------------------------- its life

    async def run(self, *, task_status: TaskStatus[None]) -> None:
        """Open, serve until cancelled, and leave."""
        inbox = self._backend.pubsub.subscribe(
            inbox_of(self.member), capacity=INBOX, on_gap=self._missed
        )
        async with self._backend, inbox as notices:
            try:
                await self._serve(notices, task_status)
            except BaseExceptionGroup as errors:
                raise_bare(errors)
            finally:
                await self._leave()

    async def _serve(self, notices: Subscribed, task_status: TaskStatus[None]) -> None:
        presence = self.presence
        loops = [self.courier.carry] * COURIERS + [presence.keep, presence.watch, presence.bury]
        async with create_task_group() as self._tasks:
            for loop in loops:
                self._tasks.start_soon(loop)
            task_status.started()
            async for notice in notices:
                self._take(notice.data)

    async def drain(self, grace: float) -> None:
        """Take no new messages from others, and finish what was accepted.

        Args:
            grace: Seconds that handlers have.
        """
        self.presence.depart()
        await self.presence.in_force(FAREWELL)
        with move_on_after(grace):
            while busy := [intake for intake in self._every() if intake.busy]:
                for intake in busy:
                    await intake.quiet()
        with move_on_after(FAREWELL):
            await self.courier.flush()

    async def _leave(self) -> None:
        """Give back what was not handled, and be out of the directory."""
        for number in [*self.intakes]:
            self.unsubscribe(number)
        for intake in self._ending:
            intake.abandon()
        with move_on_after(FAREWELL, shield=True), suppress(BackendError):
            await self.courier.finish()
            await self.presence.leave()

    def close(self) -> None:
        """Tell all who wait for something, in whatever task, that this run is over."""
        self.closed = True
        self.requests.close()
        self.courier.close()
        self.presence.end()

    # ------------------------------------------------------------------------ subscriptions

    def subscribe(self, pattern: str, handler: Handler, terms: Terms) -> int:
        """Begin a subscription; return its number.

        Raises:
            QueueFullError: There are :data:`MOST` of them.
        """
        if len(self.intakes) >= MOST:
            raise QueueFullError(f"a broker has at most {MOST:,} subscriptions", name=self._name)
        self._numbers = number = self._numbers + 1
        intake = Intake(
            pattern,
            handler,
            terms,
            home=self.requests.home,
            answer=self._answer,
            spawn=self._spawn,
        )
        self.presence.list(Listed(number, pattern, terms.group, terms.answers))
        self.intakes[number] = intake
        return number

    def unsubscribe(self, number: int) -> None:
        """End a subscription; what waits there is still handled."""
        self.presence.unlist(number)
        intake = self.intakes.pop(number, None)
        if intake is not None:
            intake.close()
            self._forget_ended()
            self._ending.append(intake)

    def totals(self) -> Totals:
        """Return the figures of all subscriptions so far, also of those that have ended."""
        totals = self._ended
        for intake in self._every():
            totals = totals.plus(intake.statistics())
        return totals

    def _forget_ended(self) -> None:
        """Keep of subscriptions that have ended their figures alone."""
        for intake in (each for each in self._ending if not each.busy):
            self._ended = self._ended.plus(intake.statistics())
        self._ending = [each for each in self._ending if each.busy]

    def _every(self) -> tuple[Intake, ...]:
        """Return all that may have something to do."""
        return (*self.intakes.values(), *self._ending)

    # ------------------------------------------------------------------------------ sending

    def ship(self, topic: str, payload: object, labels: Labels) -> Shipment:
        """Make the shipment of a message."""
        draft = Draft(self._id(), topic, payload, labels, scribe=self._scribe)
        return Shipment(
            draft,
            self.routes.here,
            home=self.requests.home,
            courier=self.courier,
            deliver=self._deliver,
        )

    async def send(self, topic: str, payload: object, labels: Labels, *, until: float) -> None:
        """Send a message to the one group that handles ``topic``."""
        looked = False
        while True:
            groups = self.routes.plan(topic).handling
            if len(groups) > 1:
                names = ", ".join(repr(group.name) for group in groups)
                msg = f"topic {topic!r} must have one group that handles it, not {names}"
                raise ValueError(msg)
            shipment = self.ship(topic, payload, labels)
            shipment.ship((), groups)
            await shipment
            if groups and not shipment.lost:
                return
            looked = await self._search(topic, until, looked=looked)

    async def ask(self, topic: str, payload: object, labels: Labels, *, timeout: float) -> Any:
        """Send a request, to one after the other until one answers; return the reply's payload."""
        pending = self.requests.open(topic, timeout)
        try:
            draft = Draft(
                self._id(),
                topic,
                payload,
                labels,
                scribe=self._scribe,
                deadline=pending.deadline,
                reply_to=f"{self.member}.{pending.number}",
            )
            looked, tried = False, _NOBODY
            while True:
                place = self.routes.plan(topic).callee(tried)
                if place is None:
                    looked = await self._search(topic, pending.deadline, looked=looked)
                    tried = tried if looked else _NOBODY
                    continue
                tried = (*tried, place)
                self._ask_one(pending, place, draft)
                if await pending:
                    return pending.value
        finally:
            pending.leave()

    def _ask_one(self, pending: Pending, place: Place, draft: Draft) -> None:
        pending.peer = place.peer
        if place.peer is self.routes.here:
            self._offer(place.number, draft.message())
            return
        pending.channel = place.peer.inbox
        pending.data = pack_delivery((place.number,), draft.envelope)
        if not self.courier.post(pending):
            raise QueueFullError("too many messages wait to be sent", name=self._name)

    async def _search(self, topic: str, until: float, *, looked: bool) -> bool:
        """Look for somebody who handles ``topic``: once, or until all had time to come back.

        Args:
            topic: What nobody handles, as far as is known.
            until: When to give up.
            looked: Whether the directory was asked already.

        Returns:
            What ``looked`` is next time; False means that all may be tried anew.

        Raises:
            NoHandlersError: There is nobody.
            ClosedError: This run is over.
            TimeoutExceededError: Time is up.
        """
        if self.closed:
            raise ClosedError(f"the broker was closed while somebody for {topic!r} was looked for")
        with move_on_after(until - monotonic()):
            if not looked:
                await self.presence.look()
                return True
            if not await self._unsettled():
                raise NoHandlersError(topic=topic)
            await sleep(_PAUSE)
            self.routes.hope()
            return False
        msg = f"nobody was found in time who handles {topic!r}"
        raise TimeoutExceededError(msg)

    async def _unsettled(self) -> bool:
        """Whether brokers are coming back after a lost connection, this one among them.

        As long as they are, an inbox without a reader does not say that its broker has ended.
        """
        if monotonic() - self._gap_at < KEEP:
            return True
        return self._counts and not await self._backend.pubsub.publish(
            inbox_of(self.member), _PROBE
        )

    # ---------------------------------------------------------------------------- receiving

    def _missed(self) -> None:
        """Frames may have been lost."""
        self.gaps += 1
        self._gap_at = monotonic()
        self.requests.missed(self.routes.here)
        self.presence.renew()

    def _take(self, data: bytes) -> None:
        """Take a frame from the inbox, whatever it is."""
        if data == _PROBE:
            return
        try:
            frame = open_frame(data)
            if isinstance(frame, Reply):
                self._take_reply(frame)
                return
            message = self._scribe.envelopes.decode(frame.envelope)
        except CodecError as error:
            self.refused += 1
            if listening():
                emit(BrokerFrameRefused(self._name, str(error)))
            return
        for number in frame.numbers:
            self._offer(number, message)

    def _take_reply(self, reply: Reply) -> None:
        """Give a reply to whoever waits for it; one that cannot be read is an end as well."""
        pending = self.requests.find(reply.number)
        if pending is None:
            return
        try:
            if reply.outcome is Outcome.VALUE:
                pending.reply(self._scribe.read(reply.body))
            elif reply.outcome is Outcome.ERROR:
                pending.fail(raised(reply.body))
            else:
                pending.absent()
        except CodecError as error:
            pending.fail(error)

    def _deliver(self, number: int, draft: Draft) -> None:
        """Take a message of this broker itself."""
        self._offer(number, draft.message())

    def _offer(self, number: int, message: Message) -> None:
        intake = self.intakes.get(number)
        if intake is None:
            self._answer(message, Outcome.ABSENT, b"")
        elif not intake.offer(message):
            self.unsubscribe(number)
            if listening():
                waiting = intake.statistics().waiting
                emit(BrokerSubscriptionFailed(intake.pattern, waiting))

    def _answer(self, message: Message, outcome: Outcome, value: Any) -> None:
        """Tell whoever asked how it ended, if anybody did."""
        reply_to = message.reply_to
        if reply_to is None:
            return
        member, _, digits = reply_to.partition(".")
        number = int(digits) if digits.isdecimal() and len(digits) <= _DIGITS else 0
        if member == self.member:
            self._answer_here(number, outcome, value)
        elif number and is_member(member):  # else no broker has written this
            self._answer_there(member, number, outcome, value)

    def _answer_there(self, member: str, number: int, outcome: Outcome, value: Any) -> None:
        """Answer a request of another broker."""
        try:
            body = self._scribe.write(value) if outcome is Outcome.VALUE else value
        except CodecError as error:
            outcome, body = Outcome.ERROR, described(error)
        reply = pack_reply(number, outcome, body)
        self.courier.post(Notification(inbox_of(member), reply))

    def _answer_here(self, number: int, outcome: Outcome, value: Any) -> None:
        """Answer a request of this broker itself."""
        pending = self.requests.find(number)
        if pending is None:
            return
        if outcome is Outcome.VALUE:
            try:
                pending.reply(self._scribe.copy(value))
            except CodecError as error:
                pending.fail(raised(described(error)))
        elif outcome is Outcome.ERROR:
            pending.fail(raised(value))
        else:
            pending.absent()

    def _id(self) -> str:
        self._ids += 1
        return f"{self.member}{self._ids:x}"

    def _spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Start a worker, in the context of this broker and not of whoever sends."""
        self._base.run(self._start, work)

    def _start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        assert self._tasks is not None, "messages come in while it runs"
        self._tasks.start_soon(work)
