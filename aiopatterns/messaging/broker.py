"""Broker: live messages between processes, and answers to questions.

Three verbs, by how many handle a message and whether one answers:

============  ==================================  =============================================
verb          who gets it                         if nobody is there
============  ==================================  =============================================
``publish``   one of each group, and every        nothing
              subscription without a group
``send``      one of the only group               ``NoHandlersError`` at once
``request``   one, and its return value comes     ``NoHandlersError`` at once
              back
============  ==================================  =============================================

::

    broker A                                  broker B
      request("users.get", 17) --inbox of B-->  handler(message)
                               <-inbox of A---  return {"name": "Ann"}

Topics are names of tokens between dots; patterns may have ``*`` for one token and ``>`` for the
rest. Brokers tell each other through the backend's directory who listens on what, so a sender
knows the receivers beforehand and a message travels once to each process that wants it.

Guarantees:

* A request ends: by its reply, by an error of the handler at once, by ``NoHandlersError`` at once
  when nobody listens, and in any case at its deadline, whatever happens to the backend.
* Of a group one member gets each message. One that has ended is found out when it is sent to, and
  the next one gets the message, at once.
* Correlation and hops travel with a message into its handler, and on from there; with a request its
  deadline as well.
* Leaving normally finishes what was accepted, and answers it.

Not guaranteed: that a message arrives. It is handled at most once, by those who listen when it is
sent; what must not be lost belongs into a ``Stream`` or a ``JobQueue``. A subscription is in force
for senders in other processes when they have heard of it, a few milliseconds after ``subscribe``
has returned; ``send`` and ``request`` look by themselves if they know of nobody.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Any, Final, final

from aiopatterns.backends.names import check_name
from aiopatterns.backends.opening import resolve
from aiopatterns.core.clock import monotonic, sleep, yield_now
from aiopatterns.core.codec import MSGPACK
from aiopatterns.core.context import deadline
from aiopatterns.core.errors import BackendUnavailableError, ClosedError
from aiopatterns.core.lifecycle import Owner
from aiopatterns.core.tracing import tracer
from aiopatterns.core.validate import (
    choice,
    count,
    function,
    instance,
    non_negative,
    optional_function,
    positive,
)
from aiopatterns.messaging.envelope import MAX_BYTES
from aiopatterns.messaging.exchange import Exchange
from aiopatterns.messaging.intake import Terms
from aiopatterns.messaging.scribe import Scribe
from aiopatterns.messaging.topics import topic_pattern
from aiopatterns.messaging.tracing import sending

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType
    from typing import Self

    from anyio.abc import TaskGroup

    from aiopatterns.backends.protocols import Backend
    from aiopatterns.core.codec import Codec
    from aiopatterns.messaging.draft import Labels
    from aiopatterns.messaging.intake import (
        Handler,
        Intake,
        KeyOf,
        Overflow,
        SubscriptionStatistics,
    )

__all__ = ["CONFIRMED_WITHIN", "Broker", "BrokerStatistics", "BrokerSubscription"]

#: Seconds that a subscription has to get into the directory.
CONFIRMED_WITHIN: Final = 5.0


@final
@dataclass(frozen=True, slots=True)
class BrokerStatistics:
    """What a broker has done since it was opened last.

    Attributes:
        connected: Whether the backend answered when it was last asked.
        peers: Other brokers that are known.
        subscriptions: Subscriptions of this broker.
        pending: Requests that await their reply.
        sent: Messages that were published, sent or requested.
        received: Messages that came, to each subscription.
        handled: Those whose handler returned.
        failed: Those whose handler raised.
        dropped: Those for which a subscription had no room.
        expired: Those whose deadline was over before they were handled.
        late: Replies that came when nobody waited any more.
        refused: What came and was no message: malformed, too long, or of a newer release.
        gaps: How often messages may have been missed: the connection was lost.
    """

    connected: bool = False
    peers: int = 0
    subscriptions: int = 0
    pending: int = 0
    sent: int = 0
    received: int = 0
    handled: int = 0
    failed: int = 0
    dropped: int = 0
    expired: int = 0
    late: int = 0
    refused: int = 0
    gaps: int = 0


@final
class BrokerSubscription:
    """A handler's place; made by :meth:`Broker.subscribe`.

    Also an ``async with`` block that closes it.
    """

    __slots__ = ("_exchange", "_intake", "_number", "group", "pattern")

    def __init__(self, exchange: Exchange, number: int) -> None:
        self._exchange = exchange
        self._number = number
        self._intake: Intake = exchange.intakes[number]
        self.pattern: str = self._intake.pattern
        self.group: str | None = self._intake.terms.group

    def statistics(self) -> SubscriptionStatistics:
        """Return the figures so far, also after it was closed."""
        return self._intake.statistics()

    async def close(self, propagation: float = 0.0) -> None:
        """Take no more messages; harmless if it is closed already.

        Others are told first, and what they send until they have heard of it is still taken. What
        waits is handled, and is not waited for.

        Args:
            propagation: Seconds in which others hear of it, 0 or more; what comes meanwhile is
                still taken. After that a request goes on to somebody else, and a message is lost.

        Raises:
            ValueError: ``propagation`` is negative.

        Cancellation: it takes no more messages all the same.
        """
        non_negative("propagation", propagation)
        try:
            self._exchange.presence.unlist(self._number)
            await self._exchange.presence.in_force(CONFIRMED_WITHIN)
            if propagation:
                await sleep(propagation)
        finally:
            self._exchange.unsubscribe(self._number)

    async def quiet(self) -> None:
        """Wait until nothing waits for the handler and nothing is in it; also when closed."""
        await self._intake.quiet()

    async def __aenter__(self) -> Self:
        """Return this subscription."""
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close it."""
        await self.close()


@final
class Broker(Owner):
    """Live messages between all brokers of one backend.

    Args:
        backend: Where they meet, or its URL; opened by the block if it is closed. Brokers in
            memory meet if they are given the same object.
        name: How statistics and events call this broker.
        codec: How messages are written. A broker reads JSON, msgpack and its own codec.
        max_bytes: Size of a message at most.
        grace: Seconds that handlers have to finish when the block ends normally, 0 or more.

    Raises:
        ValueError: A value is out of its range, or the URL is wrong.
        TypeError: A value is of another type.

    Example::

        async with Broker("redis://localhost") as broker:
            await broker.subscribe("users.get", get_user, group="users")
            user = await broker.request("users.get", {"id": 17}, timeout=2)
    """

    __slots__ = ("_backend", "_exchange", "_grace", "_scribe")

    def __init__(
        self,
        backend: Backend | str,
        *,
        name: str = "broker",
        codec: Codec = MSGPACK,
        max_bytes: int = MAX_BYTES,
        grace: float = 20.0,
    ) -> None:
        super().__init__(name)
        self._backend = resolve(backend)
        self._scribe = Scribe(codec, max_bytes=max_bytes)
        self._grace = non_negative("grace", grace)
        self._exchange: Exchange | None = None

    @property
    def backend(self) -> Backend:
        """Where the brokers meet."""
        return self._backend

    def statistics(self) -> BrokerStatistics:
        """Return the figures since this broker was opened last; all 0 before that."""
        exchange = self._exchange
        if exchange is None:
            return BrokerStatistics()
        totals = exchange.totals()
        return BrokerStatistics(
            connected=self._group is not None and exchange.presence.connected,
            peers=len(exchange.routes),
            subscriptions=len(exchange.intakes),
            pending=len(exchange.requests),
            sent=exchange.sent,
            received=totals.received,
            handled=totals.handled,
            failed=totals.failed,
            dropped=totals.dropped,
            expired=totals.expired,
            late=exchange.requests.late,
            refused=exchange.refused,
            gaps=exchange.gaps,
        )

    async def subscribe(
        self,
        topic: str,
        handler: Handler,
        *,
        group: str | None = None,
        concurrency: int = 16,
        key: KeyOf | None = None,
        capacity: int = 10_000,
        overflow: Overflow = "drop_old",
        answers: bool = True,
    ) -> BrokerSubscription:
        """Let ``handler`` have the messages of ``topic`` from now on.

        Args:
            topic: A topic or a pattern.
            handler: ``handler(message)``; what it returns is the reply to a request. A plain
                function is called on the loop, so it must be quick.
            group: Of all subscriptions of one group, in all processes, one gets each message.
                Without a group this one gets all. At most 1,024 bytes in UTF-8.
            concurrency: Messages in the handler at a time, 1 or more.
            key: ``key(message)`` gives the key of a message: those of one key are handled one
                after the other, in the order of arrival; None for no order.
            capacity: Messages that wait for the handler at most.
            overflow: When one more comes, ``"drop_old"`` drops the first in line, ``"drop_new"`` the
                one that comes, and ``"fail"`` drops it and ends the
                subscription, so that others of its group get the rest. Who waits for the reply
                of a dropped request is told at once.
            answers: Whether it gets what is sent and requested as well. False: only what is
                published; it is passed over for all else, as if it were not there.

        Returns:
            The subscription; it ends with this broker's block.

        Raises:
            ValueError: ``topic`` is no topic or pattern, or a value is out of its range.
            TypeError: A value is of another type.
            BackendUnavailableError: The backend has not answered for a while.
            QueueFullError: This broker has 65,535 subscriptions.
            ClosedError: This broker is not open, or was closed meanwhile.

        Cancellation: as if it had never been called.

        Complexity: 2 round trips.
        """
        exchange = self._running()
        topic_pattern("topic", topic)
        function("handler", handler)
        terms = Terms(
            group=None if group is None else check_name("group", group),
            concurrency=count("concurrency", concurrency),
            capacity=count("capacity", capacity),
            overflow=choice("overflow", overflow, ("drop_old", "drop_new", "fail")),
            key=optional_function("key", key),
            answers=instance("answers", answers, bool, "True or False"),
        )
        number = exchange.subscribe(topic, handler, terms)
        subscription = BrokerSubscription(exchange, number)
        try:
            if not await exchange.presence.in_force(CONFIRMED_WITHIN):
                if exchange.closed:
                    raise ClosedError(f"the broker was closed while {topic!r} was subscribed to")
                raise BackendUnavailableError(
                    f"{self._backend.url} has not taken the subscription of {topic!r}"
                    f" within {CONFIRMED_WITHIN:g} s"
                )
        except BaseException:
            exchange.unsubscribe(number)
            raise
        return subscription

    async def publish(
        self,
        topic: str,
        payload: object = None,
        *,
        type: str | None = None,
        version: int = 1,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Give a message to one of each group, and to every subscription without a group.

        Args:
            topic: Where it goes: a topic without wildcards.
            payload: What it says: whatever the codec can write.
            type: What the payload is; by default the topic.
            version: Version of the payload's form.
            key: The message's key.
            headers: Anything else, text to text.

        Raises:
            ValueError: ``topic`` is no topic, or a value is out of its range.
            CodecError: The payload cannot be written, or is too long; nobody gets it.
            BackendUnavailableError: Some receivers could not be sent to.
            RejectedError: Services call each other in a circle, or too much waits to be sent.
            ClosedError: This broker is not open, or was closed meanwhile.

        Cancellation: it may have been sent or not.

        Complexity: O(receivers), 1 round trip; none for subscriptions of this broker.
        """
        exchange = self._running()
        labels: Labels = ("event", type, version, key, headers)
        plan = exchange.routes.plan(topic)
        exchange.sent += 1
        with sending("broker", topic, "publish", type):
            shipment = exchange.ship(topic, payload, labels)
            shipment.ship(plan.each, plan.groups)
            await shipment
        await yield_now()  # or whoever publishes in a loop would never let handlers run

    async def send(
        self,
        topic: str,
        payload: object = None,
        *,
        type: str | None = None,
        version: int = 1,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        """Give a message to one member of the one group that handles ``topic``.

        Subscriptions without a group do not handle it. Arguments and errors are those of
        :meth:`publish`, and:

        Raises:
            NoHandlersError: There is no such group, or nobody of it is there.
            ValueError: There are several; the message names them.
            TimeoutExceededError: Brokers come back after an outage, and none in time.
        """
        exchange = self._running()
        labels: Labels = ("command", type, version, key, headers)
        until, bound = monotonic() + CONFIRMED_WITHIN, deadline()
        exchange.sent += 1
        until = until if bound is None else min(until, bound)
        with sending("broker", topic, "send", type):
            await exchange.send(topic, payload, labels, until=until)
        await yield_now()

    async def request(
        self,
        topic: str,
        payload: object = None,
        *,
        timeout: float = 5.0,
        type: str | None = None,
        version: int = 1,
        key: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Any:
        """Ask, and return the payload of the answer.

        One subscription answers: that of the most specific pattern; among equals one of a group,
        before one without a group.

        Args:
            topic: What is asked: a topic without wildcards.
            payload: What goes with it: whatever the codec can write.
            timeout: Seconds that all of it may take, above 0; a deadline that is bound already
                and comes earlier counts.
            type: What the payload is; by default the topic.
            version: Version of the payload's form.
            key: The message's key.
            headers: Anything else, text to text.

        Returns:
            What the handler returned, as plain data.

        Raises:
            NoHandlersError: Nobody answers ``topic``; at once.
            RemoteError: The handler raised, at once, or its process has gone (code
                ``handler_lost``).
            TimeoutExceededError: There was no reply in time.
            BackendUnavailableError: The request could not be sent, or the connection was lost
                while the reply was due; it may have been handled.
            ValueError: ``topic`` is no topic, or a value is out of its range.
            CodecError: The payload cannot be written, or is too long.
            RejectedError: Services ask each other in a circle, or too much waits to be sent.
            ClosedError: This broker is not open, or was closed meanwhile.

        Cancellation: the reply is dropped when it comes; the handler is not told.

        Complexity: 2 round trips; none if this broker itself answers.
        """
        exchange = self._running()
        labels: Labels = ("query", type, version, key, headers)
        if timeout.__class__ is not float or not 0.0 < timeout < inf:
            positive("timeout", timeout)
        exchange.sent += 1
        if tracer() is None:  # a third of what the span of nobody costs, where everything counts
            return await exchange.ask(topic, payload, labels, timeout=timeout)
        with sending("broker", topic, "request", type):
            return await exchange.ask(topic, payload, labels, timeout=timeout)

    # --------------------------------------------------------------------------- private core

    def _running(self) -> Exchange:
        if self._group is None:
            self._open_group()
        assert self._exchange is not None, "made by the opening"
        return self._exchange

    async def _start(self, tasks: TaskGroup) -> None:
        self._exchange = Exchange(self.name, self._backend, self._scribe)
        await tasks.start(self._exchange.run)

    async def _drain(self) -> None:
        await self._running().drain(self._grace)

    def _settle(self) -> None:
        assert self._exchange is not None, "made by the opening"
        self._exchange.close()
