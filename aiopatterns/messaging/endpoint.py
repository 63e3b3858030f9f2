"""Endpoints: one handler of a running service, with its calls and their figures.

::

    message --> calls --> active --+--> done
                                   +--> failed      it raised, or its deadline was over
                                   `--> cancelled   the service has ended

Each call runs in a cancel scope. The scope ends at the deadline of the message, for nobody waits
for the answer any more, and when the service's grace is over.

Guarantee, at every instant: ``calls == done + failed + cancelled + active``.
"""

from __future__ import annotations

from contextvars import copy_context
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, final

from anyio import CancelScope

from aiopatterns.core.clock import call_later, monotonic
from aiopatterns.core.context import adopt, new_id, run_in
from aiopatterns.core.errors import (
    AioPatternsError,
    CodecError,
    RejectedError,
    RemoteError,
    TimeoutExceededError,
    UnknownVersionError,
)
from aiopatterns.core.notes import in_words
from aiopatterns.messaging.callplan import BAD_PAYLOAD
from aiopatterns.messaging.context import Context
from aiopatterns.messaging.remote import LOST, lost_handler

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aiopatterns.messaging.broker import Broker, BrokerSubscription
    from aiopatterns.messaging.callplan import CallPlan
    from aiopatterns.messaging.message import Message
    from aiopatterns.messaging.tags import HandlerKind, Tag
    from aiopatterns.messaging.versioning import Upcasters

__all__ = ["UNKNOWN_VERSION", "Endpoint", "HandlerStatistics", "Scene"]

#: The code of a message in a version that the service does not know.
UNKNOWN_VERSION: Final = "unknown_version"

# Seconds after the deadline at which a call is ended: whoever asks gives up first, by its own
# clock, and is not told of somebody else's timeout.
_LATE: Final = 0.01


@final
@dataclass(frozen=True, slots=True)
class HandlerStatistics:
    """What one handler of a running service has done so far.

    Attributes:
        kind: What calls it.
        topic: Its topic or pattern; empty for the clock.
        calls: Calls that began.
        done: Those that returned.
        failed: Those that raised, or ran into their deadline.
        cancelled: Those that the end of the service interrupted, or kept from beginning.
        active: Those that run now.
        seconds: What they took, all together.
        last_error: The last error in words, or None.
        waiting: Messages that wait for a call.
        dropped: Messages for which there was no room.
        expired: Messages whose deadline was over before they could be handled.
    """

    kind: HandlerKind
    topic: str
    calls: int
    done: int
    failed: int
    cancelled: int
    active: int
    seconds: float
    last_error: str | None
    waiting: int = 0
    dropped: int = 0
    expired: int = 0


@final
class Scene:
    """What all endpoints of one run share.

    Args:
        service: The service's name.
        broker: Where it runs.
        upcasters: Bring old messages to their newest form; None leaves all as they are.
    """

    __slots__ = ("_scope_type", "broker", "over", "scopes", "service", "state", "upcasters")

    def __init__(self, service: str, broker: Broker, upcasters: Upcasters | None = None) -> None:
        self.service: str = service
        self.broker: Broker = broker
        self.upcasters: Upcasters | None = upcasters
        self.state: Mapping[str, Any] = {}
        self.over: bool = False
        self.scopes: set[CancelScope] = set()
        self._scope_type = CancelScope

    def enter(self) -> CancelScope:
        """Return the scope of one more call."""
        if self._scope_type is CancelScope:
            # CancelScope() looks for the running backend and its class every time; once will do.
            self._scope_type = type(CancelScope())
        scope = self._scope_type()
        self.scopes.add(scope)
        return scope

    def cut(self) -> None:
        """End all calls that run, and let none begin."""
        self.over = True
        for scope in [*self.scopes]:
            scope.cancel()


@final
class Endpoint:
    """One handler of a running service.

    Args:
        name: The handler's name.
        tag: How it is called.
        plan: What a call does.
        scene: What it shares with the others.
    """

    __slots__ = (
        "_active",
        "_calls",
        "_cancelled",
        "_done",
        "_failed",
        "_last_error",
        "_plan",
        "_scene",
        "_seconds",
        "name",
        "place",
        "tag",
    )

    def __init__(self, name: str, tag: Tag, plan: CallPlan, scene: Scene) -> None:
        self.name: str = name
        self.tag: Tag = tag
        self.place: BrokerSubscription | None = None  # of what comes by the broker
        self._plan = plan
        self._scene = scene
        self._calls = self._done = self._failed = self._cancelled = self._active = 0
        self._seconds = 0.0
        self._last_error: str | None = None

    async def handle(self, message: Message) -> Any:
        """Handle a message; what the broker calls, in a context of the message's own.

        Raises:
            RejectedError: The service has ended meanwhile.
            RemoteError: The payload does not fit, its version is not known, or the service ended
                while it was handled.
            TimeoutExceededError: The deadline was over before the handler.
        """
        scene = self._scene
        ctx = Context(
            deadline=message.deadline,
            correlation_id=message.correlation_id,
            hops=message.hops,
            state=scene.state,
            service=scene.service,
            handler=self.name,
            broker=scene.broker,
            message=message,
        )
        return await self._run(ctx, message.payload)

    async def tick(self) -> None:
        """Call what the clock calls, with a correlation id of its own; raises what it raises.

        Returns also when the end of the service has cut it off: that is nobody's error.
        """
        scene, variables, correlation = self._scene, copy_context(), new_id()
        variables.run(adopt, correlation, None)
        ctx = Context(
            correlation_id=correlation,
            state=scene.state,
            service=scene.service,
            handler=self.name,
            broker=scene.broker,
        )
        try:
            await run_in(variables, self._run(ctx, None))
        except RemoteError as error:
            if not scene.over or error.code != LOST:
                raise

    def statistics(self) -> HandlerStatistics:
        """Return the figures so far."""
        place = None if self.place is None else self.place.statistics()
        return HandlerStatistics(
            kind=self.tag.kind,
            topic=self.tag.topic,
            calls=self._calls,
            done=self._done,
            failed=self._failed,
            cancelled=self._cancelled,
            active=self._active,
            seconds=self._seconds,
            last_error=self._last_error,
            waiting=0 if place is None else place.waiting,
            dropped=0 if place is None else place.dropped,
            expired=0 if place is None else place.expired,
        )

    # --------------------------------------------------------------------------- private core

    async def _run(self, ctx: Context, payload: object) -> Any:
        """Make one call, until it returns, its deadline is over, or the service is."""
        scene = self._scene
        self._calls += 1
        if scene.over:
            self._cancelled += 1
            raise RejectedError(f"service {scene.service!r} is stopping", name=scene.service)
        self._active += 1
        scope, began = scene.enter(), monotonic()
        timer = None
        if ctx.deadline is not None:
            timer = call_later(max(ctx.deadline - began, 0.0) + _LATE, scope.cancel)
        try:
            with scope:
                return await self._counted(ctx, payload)
            raise self._interrupted()
        finally:
            if timer is not None:
                timer.cancel()
            scene.scopes.discard(scope)
            self._active -= 1
            self._seconds += monotonic() - began

    async def _counted(self, ctx: Context, payload: object) -> Any:
        try:
            if self._scene.upcasters is not None and ctx.message is not None:
                ctx.message = message = _newest(ctx.message, self._scene.upcasters)
                payload = message.payload
            value = await self._plan.begin(ctx, payload)
        except Exception as error:
            self._fail(error)
            raise
        except SystemExit as error:  # ends neither the service nor its process
            stopped = AioPatternsError(f"{self.name!r} called sys.exit({error.code!r})")
            self._fail(stopped)
            raise stopped from error
        except BaseException:
            self._cancelled += 1
            raise
        self._done += 1
        return value

    def _interrupted(self) -> Exception:
        """Return the error of a call that its scope has cancelled."""
        if self._scene.over:
            return lost_handler(self.tag.topic)
        late = TimeoutExceededError(f"{self.name!r} was not done at the deadline")
        self._cancelled -= 1  # as which it was counted when the cancellation came through
        self._fail(late)
        return late

    def _fail(self, error: Exception) -> None:
        self._failed += 1
        self._last_error = in_words(error)


def _newest(message: Message, upcasters: Upcasters) -> Message:
    """Return ``message`` in its newest form.

    Raises:
        RemoteError: Its version is not known, or a step could not be taken; whoever asks is told.
    """
    try:
        return upcasters.upcast_message(message)
    except UnknownVersionError as error:
        raise RemoteError(
            str(error),
            type="UnknownVersionError",
            code=UNKNOWN_VERSION,
            details={"version": error.version},
        ) from error
    except CodecError as error:
        raise RemoteError(str(error), type="CodecError", code=BAD_PAYLOAD) from error
