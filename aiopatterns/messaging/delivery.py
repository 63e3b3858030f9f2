"""A delivery: one message of a stream, and the block whose end decides what becomes of it.

::

    async for delivery in consumer:
        async with delivery as message:
            await handle(message)

=============================  ====================================================
the block                      the message
=============================  ====================================================
ends, or is left by ``break``  is done
raises an error                comes again after a while, or is given up after
                               ``max_deliveries``; the error goes on
raises ``Reject``              is given up at once; the error goes on
raises ``RetryLater``          comes again after its delay, not counted; it goes on
is cancelled                   is given back, not counted
is never entered               is given back, not counted, when the delivery is
                               forgotten or the consumer ends
belongs to a consumer that     has gone to another one: whatever the block says is
was silent for too long        not heard, and an event tells so
=============================  ====================================================

While the block runs the claim is renewed, and whatever it sends is on behalf of the message.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, final

from aiopatterns.core.errors import ClosedError
from aiopatterns.core.tracing import NO_SPAN
from aiopatterns.messaging.serving import bindings

if TYPE_CHECKING:
    from types import TracebackType

    from aiopatterns.core.context import Bound
    from aiopatterns.core.tracing import Span
    from aiopatterns.messaging.claim import Claim
    from aiopatterns.messaging.judge import Judge
    from aiopatterns.messaging.message import Message

__all__ = ["Delivery"]


@final
class Delivery:
    """One message in hand; enter it once.

    Args:
        claim: The entry.
        judge: Decides what becomes of it.

    Raises:
        RuntimeError: It is entered a second time.
        ClosedError: It is entered after its consumer has ended, or has lost it.
    """

    __slots__ = ("_bound", "_claim", "_entered", "_judge", "_span")

    def __init__(self, claim: Claim, judge: Judge) -> None:
        self._claim = claim
        self._judge = judge
        self._entered = False
        self._bound: list[Bound[Message] | Bound[str]] = []
        self._span: Span = NO_SPAN

    @property
    def id(self) -> str:
        """Id of the entry in the stream."""
        return self._claim.id

    @property
    def attempt(self) -> int:
        """Which delivery of the message this is, from 1."""
        return self._claim.attempt

    @property
    def lost(self) -> bool:
        """Whether another consumer has the message by now, so that what is done here is too late."""
        return self._claim.lost

    async def __aenter__(self) -> Message:
        """Return the message."""
        claim = self._claim
        if self._entered:
            msg = f"the delivery of {claim.id} was entered already; a block handles it once"
            raise RuntimeError(msg)
        if not self._judge.holds(claim):
            raise ClosedError(f"the delivery of {claim.id} is not in hand any more")
        self._entered = True
        self._judge.begin(claim)
        self._bound = bindings(claim.message)
        for each in self._bound:
            each.__enter__()
        self._span = self._judge.span(claim)
        self._span.__enter__()
        return claim.message

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Decide; the error goes on."""
        self._span.__exit__(exc_type, exc, traceback)
        for each in reversed(self._bound):
            each.__exit__(exc_type, exc, traceback)
        self._judge.decide(self._claim, exc)

    def __del__(self) -> None:
        """Give back what nobody has entered."""
        if not self._entered:
            self._judge.forgotten(self._claim)
