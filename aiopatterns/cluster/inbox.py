"""Messages that have arrived, and the handlers that get them one after the other.

Guarantees:

* Every message goes to every handler, in the order of arrival, one at a time.
* At most ``size`` messages wait. When it is full, who sends directly is refused, and a broadcast
  comes again later: nothing is dropped that was accepted.
* A handler that raises stops nothing: the error is an event, and the next message comes.
"""

from __future__ import annotations

from collections import deque
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, TypeAlias, final

from anyio import get_cancelled_exc_class

from aiopatterns.cluster.peerevents import PeerHandlerFailed
from aiopatterns.core.clock import yield_now
from aiopatterns.core.codec import MSGPACK
from aiopatterns.core.telemetry import Subscription, emit, listening
from aiopatterns.core.validate import function
from aiopatterns.core.waiters import Waiters, cancel_requested

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["Handler", "Inbox"]

Handler: TypeAlias = "Callable[[str, Any], object]"


@final
class Inbox:
    """The messages of one node.

    Args:
        name: Name of the node, for events.
        size: How many may wait.
    """

    __slots__ = (
        "_busy",
        "_handlers",
        "_idle",
        "_messages",
        "_name",
        "_news",
        "_size",
        "closed",
        "failed",
        "handled",
    )

    def __init__(self, name: str, size: int) -> None:
        self._name = name
        self._size = size
        self._handlers: dict[object, Handler] = {}
        self._messages: deque[tuple[str, bytes]] = deque()
        self._news, self._idle = Waiters(), Waiters()
        self._busy = False
        self.closed: bool = True
        self.handled: int = 0
        self.failed: int = 0

    def __len__(self) -> int:
        """How many wait."""
        return len(self._messages)

    def subscribe(self, handler: Handler) -> Subscription:
        """Call ``handler`` with each message that is taken from now on."""
        key = object()
        self._handlers[key] = function("handler", handler)
        return Subscription(lambda: self._handlers.pop(key))

    def offer(self, sender: str, payload: bytes) -> bool:
        """Put a message in, unless it is full or closed."""
        if self.closed or len(self._messages) >= self._size:
            return False
        self._messages.append((sender, payload))
        self._news.wake()
        return True

    def open(self) -> None:
        """Take messages from now on, and count anew."""
        self.closed = False
        self.handled = self.failed = 0

    def clear(self) -> None:
        """Close it, and throw away what waits."""
        self.closed = True
        self._messages.clear()
        self._busy = False

    async def drained(self) -> None:
        """Wait until everything is handled."""
        while self._messages or self._busy:
            await self._idle.wait()

    async def run(self) -> None:
        """Hand over one message after the other; ends by cancellation."""
        while True:
            while not self._messages:
                self._idle.wake_all()
                await self._news.wait()
            sender, payload = self._messages.popleft()
            self._busy = True
            await self._hand_over(sender, payload)
            self._busy = False
            await yield_now()

    async def _hand_over(self, sender: str, payload: bytes) -> None:
        for handler in tuple(self._handlers.values()):
            try:
                # Decoded for each: no handler can change what another one gets.
                result = handler(sender, MSGPACK.decode(payload))
                if isawaitable(result):
                    await result
            except Exception as error:
                self.fail(sender, error)
            except get_cancelled_exc_class() as error:
                if cancel_requested():
                    raise
                self.fail(sender, error)  # the handler has cancelled itself
        self.handled += 1

    def fail(self, sender: str, error: BaseException) -> None:
        """Count and tell that a function of the user's has raised."""
        self.failed += 1
        if listening():
            emit(PeerHandlerFailed(self._name, sender, repr(error)))
