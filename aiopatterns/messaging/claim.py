"""A claim: one entry of a stream in the hands of one consumer.

::

    claimed --begin--> in a body or handler --ack, retry, bury, release--> settled
       |                      |
       `------- release ------+------- another consumer has taken it --> lost
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from aiopatterns.core.clock import call_later

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiopatterns.messaging.message import Message

__all__ = ["Claim"]


@final
class Claim:
    """An entry in hand.

    Args:
        id: Id of the entry.
        message: What is in it.
        deliveries: How often the group has handed it out, this time included.
    """

    __slots__ = (
        "_cancel",
        "_then",
        "attempt",
        "begun",
        "deliveries",
        "id",
        "key",
        "lost",
        "message",
    )

    def __init__(self, id: str, message: Message, deliveries: int) -> None:
        self.id: str = id
        self.message: Message = message
        self.deliveries: int = deliveries
        self.attempt: int = deliveries  # more than the deliveries, if it is tried again in place
        self.begun: bool = False
        self.lost: bool = False
        self.key: object = None
        self._cancel: Callable[[], object] | None = None
        self._then: Callable[[], object] | None = None

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
