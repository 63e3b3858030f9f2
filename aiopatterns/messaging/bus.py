"""EventBus: tell the rest of the process what has happened, without knowing who wants to know.

::

    publish(UserCreated(7), topic="user.created")
        |
        |   subscribed to UserCreated, to a base class of it, or to "user.*",
        |   the higher priority first, then in the order of subscription
        v
    handler 1 --> handler 2 (raises: reported) --> handler 3 --> publish returns
        |
        `- publishes on the same bus: queued, returns at once;
           handed to its handlers when those of the first event are done

Handlers run one after the other in the task that publishes, so there are no tasks, no queues and
no owner: context variables, deadlines and cancellation are those of the publisher, and when
``publish`` returns, all has been done. To publish and go on, start it in a task group of yours.

Guarantees:

* The error of a handler, its timeout, or that it cancelled itself, never stops the others.
* Every handler that was subscribed when the event's turn came, and still is, is called once for
  each of its subscriptions that the event meets. After a subscription was closed, no call begins.
* A handler that publishes, itself or in tasks it starts, never waits for itself: its events wait
  in line and are handed over in order, before the first ``publish`` returns.
* ``published == done + dropped + queued + running`` at every instant.
* The loop gets a turn at least every 64 events, whatever the handlers do.

Not guaranteed: that handlers are not called at the same time; those of two publishers in two tasks
are. A cancelled publisher drops what is still in line. A handler that answers its cancellation
with another error has swallowed it.

Source: the semantics of blinker's ``send_async``, with isolation, topics and no recursion.
"""

from __future__ import annotations

import logging
from collections import deque
from contextvars import ContextVar
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, TypeAlias, TypeVar, final, overload

from anyio import get_cancelled_exc_class

from aiopatterns.core.clock import yield_now
from aiopatterns.core.errors import QueueFullError
from aiopatterns.core.telemetry import Event, Subscription, emit, listening
from aiopatterns.core.validate import choice, count, instance, text
from aiopatterns.core.waiters import cancel_requested
from aiopatterns.messaging.message import Message
from aiopatterns.messaging.subscriber import Subscriber
from aiopatterns.messaging.topics import TopicTrie, topic_pattern

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiopatterns.messaging.subscriber import SubscriberStatistics

__all__ = ["BusErrors", "BusStatistics", "EventBus", "HandlerFailed"]

E = TypeVar("E")

BusErrors: TypeAlias = Literal["report", "raise"]

# One forced turn of the loop in that many events.
_TURN: Final = 64
# Plans that are kept; a program has as many as it has types and topics of events.
_KEPT_PLANS: Final = 1_024


@dataclass(frozen=True, slots=True)
class HandlerFailed(Event):
    """A handler of an event bus raised, or took too long; the others were called all the same.

    Args:
        bus: The bus's name.
        handler: The handler's name.
        topic: The event's topic, or None.
        error: What was raised.
    """

    name: ClassVar[str] = "aiopatterns.bus.handler_failed"
    level: ClassVar[str] = "error"

    bus: str
    handler: str
    topic: str | None
    error: Exception


@final
@dataclass(frozen=True, slots=True)
class BusStatistics:
    """What a bus knows at one instant; ``published == done + dropped + queued + running``.

    Attributes:
        published: Events that were taken.
        done: Events that were handed to all their handlers.
        dropped: Events that were not, for their publisher was cancelled.
        queued: Events that were published by handlers and wait for their turn.
        running: Events that are with their handlers now.
        unheard: Those of the done events that had no handler.
        errors: Calls of handlers that raised, or took too long.
        subscribers: The handlers in the order of their subscription.
    """

    published: int
    done: int
    dropped: int
    queued: int
    running: int
    unheard: int
    errors: int
    subscribers: tuple[SubscriberStatistics, ...]


@final
class _Delivery:
    """One ``publish`` that is under way, with the events that its handlers have published."""

    __slots__ = ("bus", "depth", "failures", "line", "open", "outer")

    def __init__(self, bus: EventBus, outer: _Delivery | None) -> None:
        self.bus = bus
        self.outer = outer
        self.open = True
        self.depth = 0  # of the event that is with its handlers now
        self.line: deque[tuple[object, str | None, int]] | None = None  # event, topic, depth
        self.failures: list[tuple[Subscriber, Exception]] = []

    def inside(self, bus: EventBus) -> _Delivery | None:
        """Return the delivery of ``bus`` that this one is part of, if there is one."""
        delivery: _Delivery | None = self
        while delivery is not None and not (delivery.bus is bus and delivery.open):
            delivery = delivery.above()
        return delivery

    def above(self) -> _Delivery | None:
        """Return the next delivery further out that is under way, and forget those that are not.

        Tasks carry deliveries on in their context, also long after these have ended.
        """
        while self.outer is not None and not self.outer.open:
            self.outer = self.outer.outer
        return self.outer


# The delivery on whose behalf the code here runs.
_current: Final[ContextVar[_Delivery | None]] = ContextVar("aiopatterns_delivery", default=None)


@final
class EventBus:
    """Hands events to handlers, by type and by topic, inside one process.

    Args:
        name: For events, logs and errors.
        errors: ``"report"`` tells of a handler's error by the event ``HandlerFailed``, or by the
            standard logger ``aiopatterns`` if nobody listens to events. With ``"raise"``,
            ``publish`` raises it when all handlers are done; several as an ExceptionGroup.
        max_depth: Events that may follow from each other, a handler of one publishing the next.
        max_queued: Events of handlers that may wait in one ``publish``.

    Raises:
        ValueError: A value is out of its range.
        TypeError: A value is of another type.

    Example::

        bus = EventBus()
        bus.subscribe(UserCreated, send_welcome)
        bus.subscribe("user.*", audit, priority=10)
        await bus.publish(UserCreated(7), topic="user.created")
    """

    __slots__ = (
        "_by_topic",
        "_by_type",
        "_done",
        "_dropped",
        "_errors",
        "_failed",
        "_max_depth",
        "_max_queued",
        "_name",
        "_number",
        "_plans",
        "_published",
        "_queued",
        "_subscribers",
        "_unheard",
        "_until_turn",
    )

    def __init__(
        self,
        name: str = "bus",
        *,
        errors: BusErrors = "report",
        max_depth: int = 100,
        max_queued: int = 10_000,
    ) -> None:
        self._name = text("name", name)
        self._errors: BusErrors = choice("errors", errors, ("report", "raise"))
        self._max_depth = count("max_depth", max_depth)
        self._max_queued = count("max_queued", max_queued)
        self._subscribers: dict[Subscriber, int] = {}  # with their number
        self._number = 0
        self._by_type: dict[type, dict[Subscriber, None]] = {}
        self._by_topic: TopicTrie[Subscriber] = TopicTrie()
        self._plans: dict[object, tuple[Subscriber, ...]] = {}
        self._published = self._done = self._dropped = self._queued = 0
        self._unheard = self._failed = 0
        self._until_turn = _TURN

    @overload
    def subscribe(
        self,
        on: type[E],
        handler: Callable[[E], object],
        *,
        once: bool = False,
        priority: int = 0,
        timeout: float | None = None,
        where: Callable[[E], object] | None = None,
    ) -> Subscription: ...
    @overload
    def subscribe(
        self,
        on: str,
        handler: Callable[[Any], object],
        *,
        once: bool = False,
        priority: int = 0,
        timeout: float | None = None,
        where: Callable[[Any], object] | None = None,
    ) -> Subscription: ...
    def subscribe(
        self,
        on: type | str,
        handler: Callable[[Any], object],
        *,
        once: bool = False,
        priority: int = 0,
        timeout: float | None = None,
        where: Callable[[Any], object] | None = None,
    ) -> Subscription:
        """Call ``handler`` with every event of a type, or of topics.

        Args:
            on: A class, whose instances and those of its subclasses are meant; or a topic, with
                ``*`` for any token and a last ``>`` for the rest.
            handler: A function of one event, async or not. A synchronous one runs in the loop, so
                it must be quick; if it returns something to await, such as a task, that is awaited.
            once: Whether its first call is its last.
            priority: Handlers of a higher one are called first.
            timeout: Seconds for each call of an async handler, above 0; None for no bound.
            where: A plain function of the event that says whether the handler is called; if it
                raises, that counts as the handler's error.

        Returns:
            The subscription; also a context manager.

        Raises:
            ValueError: A value is out of its range, such as a pattern that is none.
            TypeError: A value is of another type.

        Complexity: O(1), and the next event of each type finds its handlers anew.
        """
        instance("on", on, (type, str), "a class, or a topic that may have wildcards")
        if isinstance(on, str):
            topic_pattern("on", on)
        subscriber = Subscriber(
            on, handler, once=once, priority=priority, timeout=timeout, where=where
        )
        self._number += 1
        self._subscribers[subscriber] = self._number
        if isinstance(on, str):
            leave = self._by_topic.add(on, subscriber).close
        else:
            self._by_type.setdefault(on, {})[subscriber] = None
            leave = partial(self._leave_type, on, subscriber)
        self._plans.clear()
        subscriber.place = Subscription(partial(self._leave, subscriber, leave))
        return subscriber.place

    async def publish(self, event: object, *, topic: str | None = None) -> None:
        """Call every handler that ``event`` is for, and wait until all are done.

        Called by a handler of this bus, also in a task that it started, it puts the event in line
        and returns at once.

        Args:
            event: Any object. Handlers that are subscribed to its class, or a base class of it,
                are called.
            topic: Handlers that are subscribed to it are called as well; by default the topic of a
                :class:`~aiopatterns.messaging.Message`, and none for anything else.

        Raises:
            Exception: With ``errors="raise"``, what a handler raised; several as an
                ExceptionGroup.
            RecursionError: A handler published, and more than ``max_depth`` events in a row have
                followed from each other.
            QueueFullError: A handler published, and ``max_queued`` events are in line.
            ValueError: ``topic`` is none.
            TypeError: ``topic`` is no text.

        Cancellation: reaches the handler that is at work; the others are not called, and what is
        in line is dropped.

        Complexity: O(handlers), for a type and topic that were published since the last change of
        subscriptions and are among the last 1,024.
        """
        if topic is None and isinstance(event, Message):
            topic = event.topic or None
        outer = _current.get()
        if outer is not None and (inside := outer.inside(self)) is not None:
            self._put_in_line(inside, event, topic)
            return
        self._until_turn -= 1
        if self._until_turn <= 0:
            await self._turn()
        plan = self._plan(event, topic)
        self._published += 1
        delivery = _Delivery(self, outer if outer is None or outer.open else outer.above())
        token = _current.set(delivery)
        try:
            await self._hand_over(delivery, plan, event, topic)
            if delivery.line is not None:
                await self._serve(delivery, delivery.line)
        except BaseException:
            self._abandon(delivery)
            raise
        finally:
            delivery.open = False
            _current.reset(token)
        if delivery.failures:
            self._raise(delivery)

    def statistics(self) -> BusStatistics:
        """Return what the bus knows of its events and handlers."""
        return BusStatistics(
            published=self._published,
            done=self._done,
            dropped=self._dropped,
            queued=self._queued,
            running=self._published - self._done - self._dropped - self._queued,
            unheard=self._unheard,
            errors=self._failed,
            subscribers=tuple(each.statistics() for each in self._subscribers),
        )

    def __repr__(self) -> str:
        return f"EventBus({self._name!r}, {len(self._subscribers)} subscribed)"

    async def _hand_over(
        self, delivery: _Delivery, plan: tuple[Subscriber, ...], event: object, topic: str | None
    ) -> None:
        """Call the handlers of one event, one after the other."""
        if not plan:
            self._unheard += 1
        try:
            for each in plan:
                if not each.open:
                    continue
                each.taken += 1
                try:
                    await each.call(event)
                except Exception as error:
                    self._note(delivery, each, error, topic)
                except get_cancelled_exc_class() as error:
                    self._note(delivery, each, _broken(each, error), topic)
        except BaseException:
            self._dropped += 1
            raise
        self._done += 1

    async def _serve(
        self, delivery: _Delivery, line: deque[tuple[object, str | None, int]]
    ) -> None:
        """Hand over what handlers have published, and what comes of that."""
        while line:
            self._until_turn -= 1
            if self._until_turn <= 0:
                await self._turn()
            event, topic, delivery.depth = line.popleft()
            self._queued -= 1
            await self._hand_over(delivery, self._plan(event, topic), event, topic)

    async def _turn(self) -> None:
        self._until_turn = _TURN
        await yield_now()

    def _put_in_line(self, delivery: _Delivery, event: object, topic: str | None) -> None:
        """Keep an event of a handler until those before it are done."""
        self._plan(event, topic)  # a topic that is none is refused here, not later
        if delivery.depth >= self._max_depth:
            msg = (
                f"{self._name}: more than max_depth={self._max_depth} events have followed from"
                f" each other, the last a {type(event).__qualname__}; do handlers answer each other?"
            )
            raise RecursionError(msg)
        if delivery.line is None:
            delivery.line = deque()
        if len(delivery.line) >= self._max_queued:
            raise QueueFullError(
                f"{self._name}: max_queued={self._max_queued} events of handlers are in line",
                name=self._name,
            )
        delivery.line.append((event, topic, delivery.depth + 1))
        self._published += 1
        self._queued += 1

    def _plan(self, event: object, topic: str | None) -> tuple[Subscriber, ...]:
        """Return the handlers of an event in the order in which they are called."""
        kind = type(event)
        try:
            return self._plans[kind if topic is None else (kind, topic)]
        except (KeyError, TypeError):
            return self._planned(kind, topic)

    def _planned(self, kind: type, topic: str | None) -> tuple[Subscriber, ...]:
        """Make such a plan, and keep it until a handler comes or goes."""
        found = [each for base in kind.__mro__ for each in self._by_type.get(base, ())]
        if topic is not None:
            found += self._by_topic.match(topic)
        found.sort(key=lambda each: (-each.priority, self._subscribers[each]))
        if len(self._plans) >= _KEPT_PLANS:
            self._plans.clear()
        plan = tuple(found)
        self._plans[kind if topic is None else (kind, topic)] = plan
        return plan

    def _note(
        self, delivery: _Delivery, subscriber: Subscriber, error: Exception, topic: str | None
    ) -> None:
        """Count a handler's error, and tell of it or keep it for the publisher."""
        self._failed += 1
        subscriber.failed(error)
        if listening():
            emit(HandlerFailed(self._name, subscriber.name, topic, error))
        elif self._errors == "report":
            self._log(subscriber, error)
        if self._errors == "raise":
            delivery.failures.append((subscriber, error))

    def _log(self, subscriber: Subscriber, error: Exception) -> None:
        logging.getLogger("aiopatterns").error(
            "%s: handler %s failed", self._name, subscriber.name, exc_info=error
        )

    def _raise(self, delivery: _Delivery) -> None:
        errors = [error for _, error in delivery.failures]
        delivery.failures.clear()  # tasks that the handlers started keep the delivery
        if len(errors) == 1:
            raise errors[0]
        msg = f"{len(errors)} calls of handlers of {self._name} failed"
        raise ExceptionGroup(msg, errors)

    def _abandon(self, delivery: _Delivery) -> None:
        """The publisher was cancelled: drop what is in line, tell of errors it will not see."""
        if delivery.line is not None:
            self._queued -= len(delivery.line)
            self._dropped += len(delivery.line)
            delivery.line.clear()
        for subscriber, error in delivery.failures:
            self._log(subscriber, error)
        delivery.failures.clear()

    def _leave(self, subscriber: Subscriber, leave: Callable[[], object]) -> None:
        subscriber.open = False
        del self._subscribers[subscriber]
        leave()
        self._plans.clear()

    def _leave_type(self, on: type, subscriber: Subscriber) -> None:
        subscribed = self._by_type[on]
        del subscribed[subscriber]
        if not subscribed:
            del self._by_type[on]


def _broken(subscriber: Subscriber, error: BaseException) -> RuntimeError:
    """Return the error of a handler that has cancelled itself; raise what others asked for."""
    if cancel_requested():
        raise error
    broken = RuntimeError(f"handler {subscriber.name} cancelled itself")
    broken.__cause__ = error
    return broken
