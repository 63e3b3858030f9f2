"""A claim: one entry of a stream in the hands of one consumer.

::

    claimed --begin--> in a body or handler --ack, retry, bury, release--> settled
       |                      |
       `------- release ------+------- another consumer has taken it --> lost
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

import msgspec

from aiopatterns.core.clock import call_later
from aiopatterns.core.tracing import NO_SPAN

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiopatterns.core.tracing import Span
    from aiopatterns.messaging.message import Message

__all__ = ["Claim"]


@final
class Claim(msgspec.Struct, eq=False):
    """An entry in hand.

    Attributes:
        id: Id of the entry.
        message: What is in it.
        deliveries: How often the group has handed it out, this time included.
        again: How often it was tried again in place since then.
        begun: Whether somebody is, or was, at work on it.
        lost: Whether another consumer has it.
        key: Its key, if keys are kept in order.
        span: Of the handler that has it.
    """

    id: str
    message: Message
    deliveries: int
    again: int = 0
    begun: bool = False
    lost: bool = False
    key: Any = None
    span: Span = NO_SPAN
    _cancel: Callable[[], object] | None = None
    _then: Callable[[], object] | None = None

    @property
    def attempt(self) -> int:
        """Which attempt this is, from 1."""
        return self.deliveries + self.again

    @property
    def rests(self) -> bool:
        """Whether something is to be done later."""
        return self._cancel is not None

    def later(self, delay: float, then: Callable[[], object]) -> None:
        """Call ``then`` after ``delay`` seconds, unless something else becomes of the claim."""
        self._then = then
        self._cancel = call_later(delay, self.hurry).cancel

    def hurry(self) -> None:
        """Do what was to be done later, if there is something, now."""
        then = self._then
        self.disarm()
        if then is not None:
            then()

    def disarm(self) -> None:
        """Let nothing happen later."""
        if self._cancel is not None:
            self._cancel()
            self._cancel = self._then = None
