"""One call of a task's function in a run: with which arguments, where, and for how long.

::

    together <-- Until(total=) of its retry: what is left of the time of all attempts
      `-- timeout of the task: the time of this attempt
            `-- asynchronous: on this loop          synchronous: in a thread

Guarantees:

* An attempt that is a retry is marked as one, so that a retry inside it can be seen.
* A synchronous function has ended when :meth:`Invocations.call` returns, also after a timeout or a
  cancellation. A thread cannot be stopped, so a result that comes late counts.
"""

from __future__ import annotations

from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, final

from anyio import CapacityLimiter, move_on_after, to_thread

from aiopatterns.core.errors import TimeoutExceededError
from aiopatterns.resilience.attempts import again

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiopatterns.flow.node import Node
    from aiopatterns.flow.task import Binding

__all__ = ["Invocations"]


@final
class Invocations:
    """The calls of one run; must be made on the running loop.

    Args:
        limit: How many threads may be busy at once.
        argument: Returns the value for a parameter, now that it is there.
    """

    __slots__ = ("_argument", "_threads")

    def __init__(self, limit: int, argument: Callable[[Binding], object]) -> None:
        self._threads = CapacityLimiter(limit)
        self._argument = argument

    async def call(self, node: Node) -> object:
        """Call the function of a task once.

        Raises:
            Exception: What the function raised.
            TimeoutExceededError: The time of this attempt, or of all attempts, was over.

        Cancellation: reaches an asynchronous function; a synchronous one is awaited.
        """
        retry, timeout = node.task.retry, node.task.timeout
        together = None if retry is None else retry.scope(node.began)
        call = self._call if node.attempts == 1 else self._call_again
        if together is None and timeout is None:
            return await call(node)
        with together or nullcontext(), move_on_after(timeout):
            return await call(node)
        raise TimeoutExceededError(
            f"task {node.task.id!r} took longer than {timeout} s", timeout=timeout
        )

    async def _call_again(self, node: Node) -> object:
        return await again(self._call, node)

    async def _call(self, node: Node) -> object:
        fn: Callable[..., Any] = node.task.fn
        call = partial(fn, **{k: self._argument(source) for k, source in node.bindings.items()})
        if node.task.asynchronous:
            return await call()
        value = await to_thread.run_sync(call, limiter=self._threads)
        return await value if hasattr(value, "__await__") else value
