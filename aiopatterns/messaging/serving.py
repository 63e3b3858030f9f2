"""Serving: the message on whose behalf code runs, so that what it sends says where it came from.

While a handler runs, its message is a context variable, beside the correlation id and the deadline
of :mod:`aiopatterns.core.context`. What the handler sends goes on from there::

    request  id=7a  hops=0  correlation=7a
      `- sent by its handler  id=7b  hops=1  correlation=7a  causation=7a

Hops end a circle of services that ask each other: a message that would have passed more than
:data:`MAX_HOPS` is refused where it is sent.
"""

from __future__ import annotations

from contextvars import ContextVar
from typing import TYPE_CHECKING, Final

from aiopatterns.core.context import Bound, adopt, bind_correlation, correlation_id
from aiopatterns.core.errors import RejectedError

if TYPE_CHECKING:
    from aiopatterns.messaging.message import Message

__all__ = ["MAX_HOPS", "bindings", "origin", "serve"]

#: How many services work may pass.
MAX_HOPS: Final = 32

_served: Final[ContextVar[Message | None]] = ContextVar("aiopatterns_message", default=None)


def serve(message: Message) -> None:
    """Let all that runs in this context from now on be on behalf of ``message``.

    Binds its correlation and its deadline as well; one without a correlation begins its own.
    Nothing is put back: call it in a context that is the message's own.
    """
    _served.set(message)
    adopt(message.correlation_id or message.id, message.deadline)


def bindings(message: Message) -> list[Bound[Message] | Bound[str]]:
    """Return what lets a block be on behalf of ``message``, in a context that others share.

    The bindings are entered in their order and left in the opposite one. The deadline is not
    among them: who has such a block has messages that wait for ever.
    """
    bound: list[Bound[Message] | Bound[str]] = [Bound(_served, message)]
    if message.correlation_id is not None:
        bound.append(bind_correlation(message.correlation_id))
    return bound


def origin(topic: str) -> tuple[str | None, str | None, int]:
    """Return what a message that is sent from here bears: correlation, causation and hops.

    Args:
        topic: Where it is sent, for the error.

    Raises:
        RejectedError: It would be more than :data:`MAX_HOPS` hops.
    """
    message = _served.get()
    if message is None:
        return correlation_id(), None, 0
    if message.hops >= MAX_HOPS:
        msg = (
            f"a message to {topic!r} would be the {message.hops + 1}th in a row; services that ask"
            f" each other in a circle end here"
        )
        raise RejectedError(msg, name=topic)
    return correlation_id(), message.id, message.hops + 1
