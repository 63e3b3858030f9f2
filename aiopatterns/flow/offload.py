"""Calls of a stage that run in an executor, several at a time where that pays.

Sending a call to a worker process costs about 0.1 ms, to a thread 0.05 ms. A function that takes
less than that is slower there than here, unless several items travel together: so the stage
learns how long an item takes, and when items are waiting sends as many as fill about 5 ms::

    waiting: a b c d e f g h      pace 1 ms  ->  [a b c d e] in one call, [f g h] in the next

Guarantees:

* Each item has its own outcome; one that fails takes no other of its chunk with it.
* When a chunk as a whole cannot be answered (its process crashed, a result cannot be sent), its
  items are run again one by one, so the failure is found and only that item is blamed. A function
  in a process may therefore run more than once for an item, as it may after any crash.
* Items are never held back to fill a chunk.
"""

from __future__ import annotations

import traceback
from typing import TYPE_CHECKING, Any, Final, final

from aiopatterns.core.clock import monotonic
from aiopatterns.core.notes import note
from aiopatterns.core.outcome import Err, Ok
from aiopatterns.flow.executors import Inline

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aiopatterns.core.outcome import Outcome
    from aiopatterns.flow.executors import Executor
    from aiopatterns.flow.stage import UserFn

__all__ = ["Offload", "run_each"]

# Long enough to hide the cost of sending, short enough to share the work and to cancel it.
_CHUNK_SECONDS: Final = 0.005
# Bounds the memory of one message and the work that a crash repeats.
_MOST: Final = 64
# Weight of the newest measurement in the moving average.
_NEWEST: Final = 0.3


@final
class Offload:
    """Runs a stage's function in an executor.

    Args:
        executor: Where; open while this is used.
        fn: The function.
        chunks: Whether several items may share a call.
    """

    __slots__ = ("_chunks", "_executor", "_fn", "_pace")

    def __init__(self, executor: Executor, fn: UserFn, *, chunks: bool) -> None:
        self._executor = executor
        self._fn = fn
        self._chunks = chunks and not isinstance(executor, Inline)
        self._pace: float | None = None

    def share(self, waiting: int, workers: int) -> int:
        """Return how many of the waiting items the next call should take."""
        if not self._chunks or not self._pace:
            return 1
        return max(1, min(waiting // workers, int(_CHUNK_SECONDS / self._pace), _MOST))

    async def run(self, items: Sequence[Any]) -> list[Outcome[Any]]:
        """Run the function for each item.

        Args:
            items: At least one item.

        Returns:
            An outcome for each item, in their order.

        Raises:
            BaseException: A cancellation, or what is no failure of an item.

        Cancellation: as :meth:`Executor.run` says.
        """
        began = monotonic()
        outcomes = [await self._one(items[0])] if len(items) == 1 else await self._many(items)
        pace = (monotonic() - began) / len(items)
        self._pace = pace if self._pace is None else _NEWEST * pace + (1 - _NEWEST) * self._pace
        return outcomes

    async def _one(self, item: Any) -> Outcome[Any]:
        try:
            return Ok(await self._executor.run(self._fn, item))
        except Exception as error:
            return Err(error)

    async def _many(self, items: Sequence[Any]) -> list[Outcome[Any]]:
        try:
            answers = await self._executor.run(run_each, self._fn, items)
        except Exception:  # the chunk failed as a whole; find out which item it was
            return [await self._one(item) for item in items]
        return [Ok(value) if done else Err(value) for done, value in answers]


def run_each(fn: UserFn, items: Sequence[Any]) -> list[tuple[bool, Any]]:
    """Call ``fn`` for each item, in a worker; pairs ``(True, value)`` or ``(False, error)``."""
    answers: list[tuple[bool, Any]] = []
    for item in items:
        try:
            answers.append((True, fn(item)))
        except Exception as error:
            note(error, f"in an executor:\n{traceback.format_exc().rstrip()}")
            answers.append((False, error))
    return answers
