"""Requests: what a broker has asked and not been answered yet.

One table by number serves all requests of a broker; a reply bears the number, and whoever waits
for it is woken with the outcome. A request ends in one of these ways, whichever comes first::

    reply                           value, or RemoteError at once if the handler raised
    its handler is not there        the next one is asked; nobody left: NoHandlersError
    its handler's process has gone  RemoteError("handler_lost")
    the reply may have been missed  BackendUnavailableError, after a lost connection
    it could not be sent            BackendUnavailableError
    deadline                        TimeoutExceededError
    the broker is closed            ClosedError

so none is left hanging. A reply that comes later, or twice, is dropped and counted.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, final

from aiopatterns.core.clock import Alarms, Home, call_later, monotonic
from aiopatterns.core.context import deadline
from aiopatterns.core.errors import BackendUnavailableError, ClosedError, TimeoutExceededError
from aiopatterns.messaging.remote import lost_handler

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import Any, Protocol

    from aiopatterns.core.clock import Parked
    from aiopatterns.core.errors import AioPatternsError
    from aiopatterns.messaging.routes import Peer

    class Timer(Protocol):
        """What a timer of the loop can do."""

        def cancel(self) -> None: ...


__all__ = ["Pending", "Requests"]

# Timeouts that have a timer of their own; a program uses few.
_TIMEOUTS: Final = 64


@final
class Pending:
    """A request that waits for its end; also the parcel in which it is sent.

    ``await`` gives True when there is a reply, which is in :attr:`value` then, and False when the
    one that was asked is not there; any other end raises.

    Args:
        requests: The table.
        number: Its number there.
        topic: What is asked.
        timeout: Seconds that it may take.
        alarms: Ring when they are over.
    """

    __slots__ = (
        "_alarms",
        "_ended",
        "_error",
        "_expire",
        "_parked",
        "_requests",
        "channel",
        "data",
        "deadline",
        "number",
        "peer",
        "timeout",
        "topic",
        "value",
    )

    def __init__(
        self,
        requests: Requests,
        number: int,
        topic: str,
        timeout: float,
        alarms: Alarms | _Alarm,
    ) -> None:
        self.number: Final = number
        self.topic: Final = topic
        self.timeout: Final = timeout
        self.peer: Peer | None = None
        self.channel: str = ""
        self.data: bytes = b""
        self.value: Any = None
        self._requests = requests
        self._ended = False
        self._error: Exception | None = None
        self._parked: Parked | None = None
        self._expire = self.expire
        self._alarms = alarms
        self.deadline: float = alarms.arm(self._expire)

    @property
    def wanted(self) -> bool:
        """Whether it still has to be sent: nothing has ended it."""
        return not self._ended

    def __await__(self) -> Generator[Any, Any, bool]:
        """Wait for the end of what was asked last.

        Raises:
            Exception: What it ended by, if that was no reply.
        """
        if not self._ended and self.peer is not None:
            self._parked = self._requests.home.future()
            yield from self._parked.__await__()
        if self._error is not None:
            raise self._error
        return self._ended

    def reply(self, value: object) -> None:
        """End it by a reply, unless something else has."""
        if not self._ended:
            self.value = value
            self._ended = True
            self._wake()

    def fail(self, error: Exception) -> None:
        """End it by an error, unless something else has."""
        if not self._ended:
            self._error = error
            self._ended = True
            self._wake()

    def absent(self) -> None:
        """The one that was asked is not there; until the next is, it may end by other means."""
        if not self._ended:
            self.peer = None
            self._wake()

    def told(self, result: int | AioPatternsError) -> None:
        """Take how the sending went; nobody at the inbox is as good as a reply."""
        if not isinstance(result, int):
            self.fail(result)
        elif not result and self.peer is not None:
            self.peer.pass_over()
            self.absent()

    def expire(self) -> None:
        """End it, for its time is over."""
        self.fail(
            TimeoutExceededError(
                f"no reply from {self.topic!r} within {self.timeout:g} s", timeout=self.timeout
            )
        )

    def leave(self) -> None:
        """Forget it; a reply that comes later is dropped, and nothing more is sent."""
        self._ended = True
        self._alarms.disarm(self._expire)
        self._requests.forget(self.number)

    def _wake(self) -> None:
        if self._parked is not None and not self._parked.done():  # else cancelled in this turn
            self._parked.set_result(None)


@final
class Requests:
    """The table; made on the loop of those who wait.

    Complexity: O(1) for each request and each reply.
    """

    __slots__ = ("_alarms", "_last", "_pending", "home", "late")

    def __init__(self) -> None:
        self.home: Final[Home] = Home()
        self.late: int = 0  # replies to nobody
        self._last = 0
        self._pending: dict[int, Pending] = {}
        self._alarms: dict[float, Alarms] = {}

    def __len__(self) -> int:
        """Return how many wait for their end."""
        return len(self._pending)

    def open(self, topic: str, timeout: float) -> Pending:
        """Begin a request; whoever does ends it with :meth:`Pending.leave`.

        Args:
            topic: What is asked.
            timeout: Seconds that it may take; a deadline that is bound here may leave fewer.
        """
        bound = deadline()
        alarms: Alarms | _Alarm
        if bound is not None and (left := bound - monotonic()) < timeout:
            timeout = max(left, 0.0)
            alarms = _Alarm(timeout)
        else:
            alarms = self._alarms_of(timeout)
        self._last = number = self._last + 1
        pending = self._pending[number] = Pending(self, number, topic, timeout, alarms)
        return pending

    def find(self, number: int) -> Pending | None:
        """Return who waits for this reply; if it comes too late it is counted."""
        pending = self._pending.get(number)
        if pending is None or not pending.wanted:
            self.late += 1
            return None
        return pending

    def forget(self, number: int) -> None:
        """Leave it to nobody."""
        self._pending.pop(number, None)

    def missed(self, here: Peer) -> None:
        """Replies may have been lost: end all that wait for one from another process."""
        for pending in self._pending.values():
            if pending.peer is not None and pending.peer is not here:
                pending.fail(
                    BackendUnavailableError(
                        f"the connection was lost while a reply from {pending.topic!r} was due;"
                        f" the request may have been handled"
                    )
                )

    def bury(self, dead: Peer) -> None:
        """End all that wait for a reply from ``dead``."""
        for pending in self._pending.values():
            if pending.peer is dead:
                pending.fail(lost_handler(pending.topic))

    def close(self) -> None:
        """End all."""
        for pending in self._pending.values():
            pending.fail(ClosedError(f"the broker was closed while {pending.topic!r} was asked"))

    def _alarms_of(self, timeout: float) -> Alarms | _Alarm:
        alarms = self._alarms.get(timeout)
        if alarms is None:
            if len(self._alarms) >= _TIMEOUTS:
                return _Alarm(timeout)
            alarms = self._alarms[timeout] = Alarms(timeout)
        return alarms


@final
class _Alarm:
    """An alarm for one request, whose budget is shared by no other."""

    __slots__ = ("_seconds", "_timer")

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    def arm(self, expire: Callable[[], object]) -> float:
        """Call ``expire`` when the time is over; return when that is."""
        self._timer: Timer = call_later(self._seconds, expire)
        return monotonic() + self._seconds

    def disarm(self, expire: Callable[[], object]) -> None:
        """Do not call it any more."""
        del expire
        self._timer.cancel()
