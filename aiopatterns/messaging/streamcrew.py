"""The crew of a consumer: the workers that ``run(handler)`` sets at work, and their lanes.

::

    admit --> ready --> 1..concurrency workers --> handler(message) --> judge
                ^              |
      lane of the key: those behind the first of their key wait here, also while it waits for its
      next attempt, which is made in place

Without ``key=`` a message that has failed goes back to the log, and another consumer may take it.
With it, one that has failed keeps its claim and its lane until it is done or given up, so that
nothing of its key overtakes it; other keys go on, and its worker does as well.

A handler runs in a context of its own, in which the message's correlation is bound. Workers are
long-lived, and one more is called only when a handler waits: handlers that never wait are called
by one worker, one after the other.
"""

from __future__ import annotations

from collections import deque
from contextvars import copy_context
from inspect import isawaitable
from types import CoroutineType
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final

import msgspec
from anyio import get_cancelled_exc_class

from aiopatterns.core.clock import Home, yield_now
from aiopatterns.core.context import Steps, forget_deadline
from aiopatterns.core.errors import RetryLater
from aiopatterns.core.waiters import cancel_requested
from aiopatterns.messaging.serving import serve

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextvars import Context

    from anyio.abc import TaskGroup

    from aiopatterns.core.clock import Parked
    from aiopatterns.messaging.claim import Claim
    from aiopatterns.messaging.fetcher import Fetcher
    from aiopatterns.messaging.judge import Judge
    from aiopatterns.messaging.message import Message

__all__ = ["StreamCrew", "StreamHandler", "StreamKey"]

#: Handles a message: an async function, or a plain one that does not block.
StreamHandler: TypeAlias = "Callable[[Message], Awaitable[object]] | Callable[[Message], object]"
#: Gives the key of a message; None for no order.
StreamKey: TypeAlias = "Callable[[Message], str | bytes | int | None]"

# Handlers that never suspend, in a row, until the loop is given a turn.
_TURN: Final = 64


@final
class StreamCrew:
    """The workers of one run.

    Args:
        handler: Handles the messages.
        concurrency: How many at once at most.
        key: Gives the key of a message; None for no order.
    """

    __slots__ = (
        "_base",
        "_called",
        "_concurrency",
        "_fetcher",
        "_handler",
        "_home",
        "_idle",
        "_judge",
        "_key",
        "_lanes",
        "_ready",
        "_tasks",
        "_workers",
    )

    def __init__(
        self, handler: StreamHandler, *, concurrency: int, key: StreamKey | None = None
    ) -> None:
        self._handler = handler
        self._concurrency = concurrency
        self._key = key
        self._tasks: TaskGroup | None = None  # until it is started
        self._base = copy_context()
        self._base.run(forget_deadline)  # that of the caller is not that of the messages
        self._ready: deque[Claim] = deque()
        self._lanes: dict[object, deque[Claim]] = {}  # a key is here as long as its first one is
        self._idle: list[Parked] = []
        self._called = False  # whether a worker is on its way
        self._workers = 0

    def start(self, tasks: TaskGroup, fetcher: Fetcher, judge: Judge) -> None:
        """Let workers come into ``tasks``, for what is here and what comes."""
        self._home = Home()
        self._fetcher, self._judge, self._tasks = fetcher, judge, tasks
        self._call_worker()

    def admit(self, claim: Claim) -> None:
        """Take ``claim`` in, behind those of its key."""
        if self._key is not None and self._waits_in_lane(claim, self._key):
            return
        self._ready.append(claim)
        self._call_worker()

    def _waits_in_lane(self, claim: Claim, key_of: StreamKey) -> bool:
        """Whether one of the same key is here; ``claim`` waits behind it then."""
        try:
            claim.key = key_of(claim.message)
            lane = self._lanes.get(claim.key)
        except Exception as error:  # without a key there is no order
            claim.key = None
            self._fetcher.bury(claim, f"its key cannot be had: {error!r}")
            return True
        if claim.key is None:
            return False
        if lane is not None:
            lane.append(claim)
            return True
        self._lanes[claim.key] = deque()
        return False

    def _leave_lane(self, claim: Claim) -> None:
        """Let the next one of the same key be handled."""
        lane = None if claim.key is None else self._lanes.get(claim.key)
        if lane:
            self._ready.append(lane.popleft())
        elif lane is not None:
            del self._lanes[claim.key]

    def _call_worker(self) -> None:
        """Let one more worker come, if there is work, and one that is there or may be."""
        if self._called or not self._ready:
            return
        if self._idle:
            parked = self._idle.pop()
            if not parked.done():  # else it is cancelled, and all of them
                self._called = True
                parked.set_result(None)
        elif self._workers < self._concurrency and self._tasks is not None:
            self._called = True
            self._workers += 1
            self._tasks.start_soon(self._work)

    async def _work(self) -> None:
        """Handle messages, for ever."""
        steps, left = Steps[object](), _TURN
        while True:
            self._called = False
            while not self._ready:
                parked = self._home.future()
                self._idle.append(parked)
                await parked
                self._called = False
            claim = self._ready.popleft()
            if self._fetcher.held.get(claim.id) is not claim:
                self._leave_lane(claim)
                continue
            if not claim.begun:
                self._fetcher.begin(claim)
            variables = self._base.copy()
            awaited = self._begin(claim, variables, steps)
            if awaited is not steps:
                await self._finish(claim, variables, steps, awaited)
            left -= 1
            if not left:
                left = _TURN
                await yield_now()

    def _begin(self, claim: Claim, variables: Context, steps: Steps[object]) -> object:
        """Call the handler; settle if it ended, and return ``steps``, or else what it waits for."""
        awaited: object = steps
        try:
            awaited = variables.run(self._call, claim, steps)
        except BaseException as error:
            self._failed(claim, error)
        else:
            if awaited is steps:
                self._settle(claim, None)
        return awaited

    def _call(self, claim: Claim, steps: Steps[object]) -> object:
        """Call the handler, up to where it waits, in the context that is the message's own."""
        serve(claim.message)
        claim.span = self._judge.span(claim)
        claim.span.activate()
        value: Any = self._handler(claim.message)  # to await, or the value itself
        if value.__class__ is CoroutineType:
            return steps.send(value)
        return steps.send(_awaited(value)) if isawaitable(value) else steps

    async def _finish(
        self, claim: Claim, variables: Context, steps: Steps[object], awaited: object
    ) -> None:
        """Await the rest of a handler that waits, while one more worker may come; then settle."""
        self._call_worker()
        try:
            await steps.rest(variables, awaited)
        except BaseException as error:
            self._failed(claim, error)
        else:
            self._settle(claim, None)

    def _failed(self, claim: Claim, error: BaseException) -> None:
        """Settle by the error of the handler; raise it, if it is the run that ends."""
        if isinstance(error, Exception):
            self._settle(claim, error)
        elif isinstance(error, get_cancelled_exc_class()) and not cancel_requested():
            msg = f"the handler has cancelled itself: {error!r}"
            self._settle(claim, RuntimeError(msg))
        else:  # nobody would handle what comes now
            claim.span.end(error)
            self._fetcher.pause()
            self._fetcher.release(claim)
            raise error

    def _settle(self, claim: Claim, error: Exception | None) -> None:
        """Decide what becomes of ``claim``, and let the next of its key come if it is done with."""
        claim.span.end(error)
        if error is None:
            self._fetcher.ack(claim)
        elif claim.key is None or not self._judge.holds(claim):
            self._judge.decide(claim, error)
        elif self._again(claim, error):
            return
        if claim.key is not None:
            self._leave_lane(claim)

    def _again(self, claim: Claim, error: Exception) -> bool:
        """Let ``claim`` be tried again in its lane; False if it is given up."""
        if isinstance(error, RetryLater):
            delay = max(error.delay, 0.0)
        elif self._judge.gives_up(claim, error):
            return False
        else:
            delay = self._judge.delay(claim, error)
            claim.again += 1
            claim.message = msgspec.structs.replace(claim.message, attempt=claim.attempt)
        claim.later(delay, lambda: self._return(claim))
        return True

    def _return(self, claim: Claim) -> None:
        self._ready.append(claim)
        self._call_worker()


async def _awaited(result: Awaitable[object]) -> object:
    return await result
