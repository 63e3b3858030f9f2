"""Dask: an executor over a cluster, for work that has outgrown one machine.

Whatever takes an executor, such as ``map_reduce``, can have its functions run by the workers of a
Dask cluster::

    map_reduce(..., executor=DaskExecutor("tcp://scheduler:8786"))
         |
         '-- at most `limit` calls out at once --> scheduler --> workers on many machines
                                                   (places calls, moves them when a worker dies)

Functions, arguments and results are pickled by Dask, as in worker processes of one machine: only
for a cluster that you trust, and functions must be importable by the workers.

Guarantees: those of every :class:`~aiopatterns.flow.executors.Executor`. A call whose worker dies
is tried again on another, as often as the scheduler allows; then ``WorkerCrashedError`` is raised.
A scheduler that does not answer, or drops calls because it goes, is ``BackendUnavailableError``.

Not guaranteed: that a function which runs on a worker stops when its caller is cancelled. Dask
stops what waits there; what runs ends by itself, and its result is dropped.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, TypeAlias, final

from anyio import TASK_STATUS_IGNORED, CancelScope, fail_after, move_on_after, sleep_forever

from aiopatterns.core.errors import BackendUnavailableError, WorkerCrashedError
from aiopatterns.core.validate import count, instance, positive
from aiopatterns.flow import child
from aiopatterns.flow.executors import Executor

try:
    from distributed import Client
    from distributed.client import FutureCancelledError
    from distributed.scheduler import KilledWorker
except ImportError:
    raise ImportError(
        "aiopatterns.contrib.dask needs distributed: pip install 'aiopatterns[dask]'",
        name="distributed",
    ) from None

if TYPE_CHECKING:
    from collections.abc import Callable

    from anyio.abc import TaskGroup, TaskStatus

__all__ = ["DaskExecutor"]

_Address: TypeAlias = "str | Client"

# Seconds to take a call back from a scheduler that may be gone.
_FAREWELL: Final = 2.0


@final
class DaskExecutor(Executor):
    """Run functions on a Dask cluster.

    Args:
        scheduler: Its address, such as ``"tcp://host:8786"``, or an asynchronous client, which is
            used and left open.
        limit: Calls that are out at once; about twice the threads of the cluster keeps it busy.
        timeout: Seconds within which the scheduler must answer.
        name: How statistics and errors call it.

    Raises:
        TypeError: The client is not asynchronous.

    Example::

        async with DaskExecutor("tcp://scheduler:8786", limit=64) as cluster:
            words = await map_reduce(paths, count, add, initial=Counter, executor=cluster)
    """

    __slots__ = ("_client", "_scheduler", "_timeout")

    def __init__(
        self,
        scheduler: _Address,
        *,
        limit: int = 16,
        timeout: float = 10.0,
        name: str = "dask",
    ) -> None:
        super().__init__(count("limit", limit), name)
        instance("scheduler", scheduler, (str, Client), "an address or a Client")
        if isinstance(scheduler, Client) and not scheduler.asynchronous:
            raise TypeError(
                "scheduler must be an asynchronous client, Client(..., asynchronous=True), or an"
                " address: this one works on a loop of its own"
            )
        self._scheduler = scheduler
        self._timeout = positive("timeout", timeout)
        self._client: Any = None

    async def _start(self, tasks: TaskGroup) -> None:
        await super()._start(tasks)
        if isinstance(self._scheduler, str):
            self._client = await tasks.start(self._keep, self._scheduler)
        else:
            self._client = self._scheduler

    def _settle(self) -> None:
        super()._settle()
        self._client = None

    async def _keep(
        self, address: str, *, task_status: TaskStatus[Any] = TASK_STATUS_IGNORED
    ) -> None:
        """Have a client of our own for as long as the executor is open."""
        new: Callable[..., Any] = Client
        client: Any = new(address, asynchronous=True, set_as_default=False, timeout=self._timeout)
        try:
            await _connected(client, address, self._timeout)
            task_status.started(client)
            await sleep_forever()
        finally:
            self._client = None  # so that callers know that it was we who have hung up
            with CancelScope(shield=True):
                await client.close()

    async def _call(self, fn: Callable[..., object], args: tuple[object, ...]) -> object:
        future = self._client.submit(fn, *args, pure=False)
        try:
            return await future
        except FutureCancelledError as error:
            if self._client is None:
                raise self._closed() from None
            raise BackendUnavailableError(f"Dask has dropped the call: {error}") from error
        except KilledWorker as error:
            attempts = error.allowed_failures + 1
            message = f"every worker that tried {child.named(fn)} died; attempts: {attempts}"
            raise WorkerCrashedError(message, attempts=attempts) from error
        except asyncio.CancelledError:
            with move_on_after(_FAREWELL, shield=True), suppress(OSError):
                await future.cancel()
            raise
        finally:
            future.release()


async def _connected(client: Any, address: str, timeout: float) -> None:
    """Wait until a client is connected; what listens there may be none that ever answers."""
    try:
        with fail_after(timeout + _FAREWELL):  # who is not there at all, the client tells before
            await client
    except (OSError, TimeoutError) as error:
        why = str(error) or f"no answer within {timeout:g} s"
        raise BackendUnavailableError(f"no Dask scheduler answers at {address}: {why}") from error
