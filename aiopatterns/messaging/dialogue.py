"""The dialogue of one consumer with the log of its stream: one turn on its way at a time.

::

    say(turn) --> on its way, while what is to be read is read --> answer
                      |
                      '--error--> clear_up(): the same again, without a claim; what is held

Guarantees: after an error it is known that a turn may not have been heard, until
:meth:`Dialogue.clear_up` has said it again and heard what is held. Its claims are not made again: those that were made
without an answer are among what is held.
"""

from __future__ import annotations

from contextvars import copy_context
from typing import TYPE_CHECKING, Final, final

from aiopatterns.backends.records import GroupTurned
from aiopatterns.core.clock import yield_now
from aiopatterns.core.context import Steps

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiopatterns.backends.protocols import Log
    from aiopatterns.backends.records import Claimed, GroupTurn

__all__ = ["Dialogue"]

# Turns of the loop until what was said is on its way: the connection collects what is said in one
# turn of the loop, and writes it in the next, and uvloop's transport writes at the end of that.
_WAY: Final = 2


@final
class Dialogue:
    """What a consumer says, and hears.

    Args:
        log: Where the entries are.
        group: The group.
        consumer: Id of the consumer.
    """

    __slots__ = ("_flying", "_log", "_steps", "_variables", "_who")

    def __init__(self, log: Log, group: str, consumer: str) -> None:
        self._log = log
        self._who: Final = (group, consumer)
        self._flying: GroupTurn | None = None  # sent, not answered
        self._steps = Steps[GroupTurned]()
        self._variables: Final = copy_context()

    @property
    def unclear(self) -> bool:
        """Whether a turn was said and not answered."""
        return self._flying is not None

    async def say(
        self, turn: GroupTurn, *, meanwhile: Callable[[], object] | None = None
    ) -> GroupTurned:
        """Take one turn.

        Args:
            turn: What to say.
            meanwhile: Called as soon as the turn is on its way, before its answer is given; it
                must not raise.

        Raises:
            BackendError: It may have been heard or not.
            ValueError: There is no such group.
        """
        steps, self._flying = self._steps, turn
        awaited = self._variables.run(steps.send, self._log.turn(*self._who, turn))
        if meanwhile is not None:
            for _ in range(_WAY if awaited is not steps else 0):
                await yield_now()
            meanwhile()
        if awaited is not steps:
            await steps.rest(self._variables, awaited)
        self._flying = None
        answer, steps.result = steps.result, None
        assert answer is not None, "it has ended without an error"
        return answer

    async def clear_up(self) -> list[Claimed]:
        """Say again what may not have been heard, and return what is held.

        Cancellation: as after an error, it is still to be done.
        """
        await self._log.create_group(self._who[0])
        if self._flying is not None:
            await self._log.turn(*self._who, self._flying._replace(limit=0))
        held = await self._log.held(*self._who)
        self._flying = None  # not sooner: what its claim brought was not known
        return held
