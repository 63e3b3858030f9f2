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

from functools import partial
from typing import TYPE_CHECKING, Final, final

from aiopatterns.core.clock import Alarms, Home, call_later, monotonic
from aiopatterns.core.context import deadline
from aiopatterns.core.errors import BackendUnavailableError, ClosedError, TimeoutExceededError
from aiopatterns.messaging.frames import Outcome, Reply
from aiopatterns.messaging.remote import lost_handler

if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import Any

    from aiopatterns.core.clock import Parked
    from aiopatterns.core.errors import AioPatternsError
    from aiopatterns.messaging.routes import Peer

__all__ = ["Pending", "Requests"]

# How a request ended whose handler is not there.
_ABSENT: Final = Reply(0, Outcome.ABSENT, b"")

# Timeouts that have a timer of their own; a program uses few.
_TIMEOUTS: Final = 64


@final
class Pending:
    """A request that waits for its end; ``await`` gives the reply, or raises.

    Args:
        requests: The table.
        number: Its number there.
        topic: What is asked.
        timeout: Seconds that it may take.
    """

    __slots__ = (
        "_disarm",
        "_outcome",
        "_parked",
        "_requests",
        "channel",
        "data",
        "deadline",
        "number",
        "peer",
        "timeout",
        "topic",
    )

    def __init__(self, requests: Requests, number: int, topic: str, timeout: float) -> None:
        self.number: Final = number
        self.topic: Final = topic
        self.timeout: Final = timeout
        self.peer: Peer | None = None
        self.channel: str = ""
        self.data: bytes = b""
        self._requests = requests
        self._outcome: Reply | AioPatternsError | None = None
        self._parked: Parked | None = None
        self.deadline, self._disarm = requests.arm(self)

    @property
    def wanted(self) -> bool:
        """Whether it still has to be sent: nothing has ended it."""
        return self._outcome is None

    def __await__(self) -> Generator[Any, Any, Reply]:
        """Wait for the end of what was asked last.

        Raises:
            AioPatternsError: It ended without a reply.
        """
        if self._outcome is None:
            self._parked = self._requests.home.future()
            yield from self._parked.__await__()
        outcome, self._outcome = self._outcome, None
        assert outcome is not None, "woken by the end"
        if isinstance(outcome, Reply):
            return outcome
        self._outcome = outcome  # the end is the end
        raise outcome

    def end(self, outcome: Reply | AioPatternsError) -> None:
        """End it, unless something else has."""
        if self._outcome is not None:
            return
        self._outcome = outcome
        if self._parked is not None and not self._parked.done():  # else cancelled in this turn
            self._parked.set_result(None)

    def told(self, result: int | AioPatternsError) -> None:
        """Take how the sending went; nobody at the inbox is as good as a reply."""
        if not isinstance(result, int):
            self.end(result)
        elif not result and self.peer is not None:
            self.peer.pass_over()
            self.end(_ABSENT)

    def expire(self) -> None:
        """End it, for its time is over."""
        self.end(
            TimeoutExceededError(
                f"no reply from {self.topic!r} within {self.timeout:g} s", timeout=self.timeout
            )
        )

    def leave(self) -> None:
        """Forget it; a reply that comes later is dropped, and nothing more is sent."""
        self._outcome = _ABSENT
        self._disarm()
        self._requests.forget(self.number)


@final
class Requests:
    """The table; made on the loop of those who wait.

    Complexity: O(1) for each request and each reply.
    """

    __slots__ = ("_alarms", "_last", "_pending", "home", "late")

    def __init__(self) -> None:
        self.home: Final = Home()
        self.late: int = 0  # replies to nobody
        self._last = 0
        self._pending: dict[int, Pending] = {}
        self._alarms: dict[float, Alarms] = {}

    def __len__(self) -> int:
        """Return how many wait for their end."""
        return len(self._pending)

    def open(self, topic: str, timeout: float) -> Pending:
        """Begin a request; whoever does ends it with :meth:`Pending.leave`."""
        self._last = number = self._last + 1
        pending = self._pending[number] = Pending(self, number, topic, timeout)
        return pending

    def forget(self, number: int) -> None:
        """Leave it to nobody."""
        self._pending.pop(number, None)

    def answer(self, reply: Reply) -> None:
        """Give a reply to whoever waits for it."""
        pending = self._pending.get(reply.number)
        if pending is None or not pending.wanted:
            self.late += 1
        else:
            pending.end(reply)

    def missed(self, own: Peer) -> None:
        """Replies may have been lost: end all that wait for one from another process."""
        for pending in self._pending.values():
            if pending.peer is not None and pending.peer is not own:
                pending.end(
                    BackendUnavailableError(
                        f"the connection was lost while a reply from {pending.topic!r} was due;"
                        f" the request may have been handled"
                    )
                )

    def bury(self, dead: Peer) -> None:
        """End all that wait for a reply from ``dead``."""
        for pending in self._pending.values():
            if pending.peer is dead:
                pending.end(lost_handler(pending.topic))

    def close(self) -> None:
        """End all."""
        for pending in self._pending.values():
            pending.end(ClosedError(f"the broker was closed while {pending.topic!r} was asked"))

    def arm(self, pending: Pending) -> tuple[float, Callable[[], object]]:
        """Let ``pending`` expire; return its deadline and what takes that back."""
        timeout, outer, now = pending.timeout, deadline(), monotonic()
        expire = pending.expire
        if outer is not None and outer < now + timeout:
            timer = call_later(outer - now, expire)
            return outer, timer.cancel
        alarms = self._alarms.get(timeout)
        if alarms is None:
            if len(self._alarms) >= _TIMEOUTS:
                return now + timeout, call_later(timeout, expire).cancel
            alarms = self._alarms[timeout] = Alarms(timeout)
        return alarms.arm(expire), partial(alarms.disarm, expire)
