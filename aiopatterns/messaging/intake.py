"""Intake: the messages of one subscription, from their arrival to the end of their handler.

::

    offer --> waiting (bounded) --> 1..concurrency workers --> handler(message) --> answer
                 |
                 `-- full: "drop_old", "drop_new" or "fail", counted, and requesters told

With ``key=`` messages of one key are handled one at a time, in the order of arrival, while those
of other keys go on beside them. Without it, and with more than one worker, there is no order.

Workers are long-lived, started when they are first needed, and end when the intake is closed and
nothing waits. Every handler runs in a context
of its own, made from that of ``subscribe``, in which the message's correlation, deadline and hops
are bound; what it changes there is gone with it. A message whose deadline is over is not handled.

Guarantees, at every instant: ``received == handled + failed + dropped + expired + cancelled +
waiting + active``.
"""

from __future__ import annotations

from collections import deque
from contextvars import copy_context
from dataclasses import dataclass
from inspect import isawaitable
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, final

from anyio import get_cancelled_exc_class

from aiopatterns.core.clock import monotonic, yield_now
from aiopatterns.core.context import Steps, forget_deadline
from aiopatterns.core.errors import QueueFullError
from aiopatterns.core.notes import in_words
from aiopatterns.core.telemetry import emit, listening
from aiopatterns.core.tracing import NO_SPAN, tracer
from aiopatterns.core.waiters import Waiters, cancel_requested
from aiopatterns.messaging.brokerevents import BrokerHandlerFailed, BrokerMessagesDropped
from aiopatterns.messaging.frames import Outcome
from aiopatterns.messaging.remote import described, lost_handler
from aiopatterns.messaging.serving import serve
from aiopatterns.messaging.tracing import processing

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Coroutine
    from contextvars import Context

    from aiopatterns.core.clock import Home, Parked
    from aiopatterns.core.tracing import Span
    from aiopatterns.messaging.message import Message

__all__ = ["Answer", "Handler", "Intake", "Overflow", "SubscriptionStatistics", "Terms"]

Overflow: TypeAlias = Literal["drop_old", "drop_new", "fail"]
Handler: TypeAlias = "Callable[[Message], Awaitable[object]] | Callable[[Message], object]"
KeyOf: TypeAlias = "Callable[[Message], str | bytes | int | None]"

#: Takes how a message ended: an outcome, and the handler's value or the description of an error.
Answer: TypeAlias = "Callable[[Message, Outcome, Any], object]"

# A message, and the key that it bears here.
_Item: TypeAlias = "tuple[Message, object]"
# Handlers that never suspend, in a row, until the loop is given a turn.
_TURN: Final = 64


@final
@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """How a subscription takes messages.

    Attributes:
        group: Its group, or None.
        concurrency: Messages in handlers at most.
        capacity: Messages that wait for a handler at most.
        overflow: What happens to one more.
        key: Gives the key of a message; None for no order.
        answers: Whether it takes what is sent and requested, or only what is published.
    """

    group: str | None
    concurrency: int
    capacity: int
    overflow: Overflow
    key: KeyOf | None
    answers: bool = True


@final
@dataclass(frozen=True, slots=True)
class SubscriptionStatistics:
    """What a subscription has done so far.

    Attributes:
        received: Messages that came.
        handled: Those whose handler returned.
        failed: Those whose handler raised.
        dropped: Those for which there was no room.
        expired: Those whose deadline was over before they were handled.
        cancelled: Those that the end of the broker interrupted or found waiting.
        waiting: Those that wait for a handler.
        active: Those that are in a handler.
    """

    received: int
    handled: int
    failed: int
    dropped: int
    expired: int
    cancelled: int
    waiting: int
    active: int


@final
class Intake:
    """The messages of one subscription.

    Args:
        pattern: What it is subscribed to.
        handler: What handles them.
        terms: How it takes them.
        home: The loop.
        answer: Told how each ended.
        spawn: Starts a worker.
    """

    __slots__ = (
        "_active",
        "_answer",
        "_base",
        "_called",
        "_cancelled",
        "_dropped",
        "_dropping",
        "_expired",
        "_failed",
        "_handled",
        "_handler",
        "_home",
        "_idle",
        "_lanes",
        "_open",
        "_quiet",
        "_ready",
        "_received",
        "_spawn",
        "_waiting",
        "_workers",
        "pattern",
        "terms",
    )

    def __init__(
        self,
        pattern: str,
        handler: Handler,
        terms: Terms,
        *,
        home: Home,
        answer: Answer,
        spawn: Callable[[Callable[[], Coroutine[Any, Any, None]]], object],
    ) -> None:
        self.pattern: Final = pattern
        self.terms: Final = terms
        self._handler = handler
        self._answer = answer
        self._spawn = spawn
        self._base = copy_context()
        self._base.run(forget_deadline)  # that of whoever subscribes is not that of the messages
        self._ready: deque[_Item] = deque()
        # Messages behind one of their key that is ready or active; a key is here as long as one is.
        self._lanes: dict[object, deque[_Item]] = {}
        self._home = home
        self._idle: list[Parked] = []  # workers that wait for a message
        self._quiet = Waiters()
        self._open = True
        self._dropping = False
        self._called = False  # whether a worker is on its way
        self._workers = self._waiting = self._active = self._received = 0
        self._handled = self._failed = self._dropped = self._expired = self._cancelled = 0

    def statistics(self) -> SubscriptionStatistics:
        """Return the figures so far."""
        return SubscriptionStatistics(
            self._received,
            self._handled,
            self._failed,
            self._dropped,
            self._expired,
            self._cancelled,
            self._waiting,
            self._active,
        )

    def offer(self, message: Message) -> bool:
        """Take ``message`` in, by the terms; False if it was refused and this has to end."""
        self._received += 1
        if self._waiting >= self.terms.capacity and not self._make_room(message):
            return self.terms.overflow != "fail"
        self._waiting += 1
        if self.terms.key is None:
            self._ready.append((message, None))
        elif not self._join_lane(message, self.terms.key):
            return True
        if not self._called:
            self._call_worker()
        return True

    @property
    def busy(self) -> bool:
        """Whether something waits or is in a handler."""
        return bool(self._waiting or self._active)

    async def quiet(self) -> None:
        """Wait until nothing waits and nothing is in a handler."""
        while self.busy:
            await self._quiet.wait()

    def close(self) -> None:
        """Let the workers end when nothing waits; nothing is offered from now on."""
        self._open = False
        while self._idle:
            self._call_worker()

    def abandon(self) -> None:
        """Give back what still waits: whoever asks is told that nobody is here."""
        left = [*self._ready, *(item for lane in self._lanes.values() for item in lane)]
        self._ready.clear()
        self._lanes.clear()
        self._waiting -= len(left)
        self._cancelled += len(left)
        for message, _ in left:
            self._answer(message, Outcome.ABSENT, b"")
        self._quiet.wake_all()

    def _join_lane(self, message: Message, key_of: KeyOf) -> bool:
        """Let ``message`` wait behind those of its key; whether it is the first and so is ready."""
        try:
            key = key_of(message)
            lane = None if key is None else self._lanes.get(key)
        except Exception as error:  # one whose key cannot be had is in no order
            if listening():
                emit(_failed(self.pattern, message, error))
            key = lane = None
        if lane is not None:
            lane.append((message, key))
            return False
        if key is not None:
            self._lanes[key] = deque()
        self._ready.append((message, key))
        return True

    def _call_worker(self) -> None:
        """Let one more worker come, if there is one or may be one.

        One at a time, and none as long as handlers do not suspend: then the one that is there
        takes all that is ready, and the others would come for nothing.
        """
        if self._idle:
            self._called = True
            parked = self._idle.pop()
            if not parked.done():  # else it is cancelled, and all of them
                parked.set_result(None)
        elif self._workers < self.terms.concurrency:
            self._called = True
            self._workers += 1
            self._spawn(self._work)

    def _make_room(self, message: Message) -> bool:
        """Drop the oldest that waits, or ``message`` itself; return whether there is room now."""
        if not self._dropping and listening():
            emit(BrokerMessagesDropped(self.pattern, self._waiting, self.terms.overflow))
        self._dropping = True
        self._dropped += 1
        made = self.terms.overflow == "drop_old"
        if made:
            self._waiting -= 1
            message = self._take_oldest()
        full = QueueFullError(
            f"{self.pattern!r} has {self.terms.capacity} messages waiting", name=self.pattern
        )
        self._answer(message, Outcome.ERROR, described(full))
        return made

    def _take_oldest(self) -> Message:
        """Take the message that has waited longest, as far as keys leave the choice."""
        if self._ready:
            message, key = self._ready.popleft()
            self._release(key)
            return message
        return next(lane for lane in self._lanes.values() if lane).popleft()[0]

    def _release(self, key: object) -> None:
        """Let the next message of ``key`` be handled."""
        lane = self._lanes.get(key)
        if lane:
            self._ready.append(lane.popleft())
        elif lane is not None:
            del self._lanes[key]

    async def _work(self) -> None:
        """Handle messages until this is closed."""
        steps, left = Steps[object](), _TURN
        self._called = False
        while True:
            while not self._ready:
                if not self._open:
                    self._workers -= 1
                    return
                self._dropping = False
                parked = self._home.future()
                self._idle.append(parked)
                await parked
                self._called = False
            message, key = self._ready.popleft()
            self._waiting -= 1
            self._active += 1
            try:
                await self._handle(message, steps)
            finally:
                self._active -= 1
                if key is not None:
                    self._release(key)
                if self._quiet.parked and not self.busy:
                    self._quiet.wake_all()
            left -= 1
            if not left:
                left = _TURN
                await yield_now()

    async def _handle(self, message: Message, steps: Steps[object]) -> None:
        """Call the handler in a context of its own, and tell how it ended."""
        if message.deadline is not None and message.deadline <= monotonic():
            self._expired += 1
            return
        variables = self._base.copy()
        run = variables.run
        run(serve, message)
        span: Span = NO_SPAN
        if tracer() is not None:
            span = processing("broker", message, group=self.terms.group, pattern=self.pattern)
            run(span.activate)
        try:
            value: Any = run(self._handler, message)  # something to await, or the value itself
            if value.__class__ is CoroutineType or isawaitable(value):
                value = await self._finish(value, variables, steps)
        except Exception as error:
            span.end(error)
            self._fail(message, error)
        except BaseException as error:
            span.end(error)
            if not isinstance(error, get_cancelled_exc_class()) or cancel_requested():
                self._cancelled += 1
                self._answer(message, Outcome.ERROR, described(lost_handler(message.topic)))
                raise
            self._fail(message, error)  # the handler has cancelled itself
        else:
            span.end()
            self._handled += 1
            self._answer(message, Outcome.VALUE, value)

    async def _finish(
        self, work: Awaitable[object], variables: Context, steps: Steps[object]
    ) -> object:
        """Await what a handler gave; once it waits itself, one more worker may come."""
        if work.__class__ is not CoroutineType:
            work = _awaited(work)
        awaited = variables.run(steps.send, work)
        if awaited is not steps:
            if self._ready and not self._called:
                self._call_worker()
            await steps.rest(variables, awaited)
        value, steps.result = steps.result, None
        return value

    def _fail(self, message: Message, error: BaseException) -> None:
        self._failed += 1
        if listening():
            emit(_failed(self.pattern, message, error))
        self._answer(message, Outcome.ERROR, described(error))


async def _awaited(result: Awaitable[object]) -> object:
    return await result


def _failed(pattern: str, message: Message, error: BaseException) -> BrokerHandlerFailed:
    return BrokerHandlerFailed(pattern, message.topic, message.id, in_words(error))
