"""Waiting for results: one watcher and one reader for all that wait on a store.

::

    handle.result() --.                     .--- live messages of the store (watch)
    handle.result() ---+--> who waits for --+
    handle.result() --'     which job       '--- looking: at once, after each message, and
                                                 every 0.25 to 5 s in any case

A live message may be lost, so it only says where to look; what counts is what is stored. All jobs
that are due for a look are asked about together. While nobody waits nothing is asked, and a few
seconds after the last one has left the watcher leaves as well, so that the queue need not tell.

Guarantees: a result that is kept is found, at the latest by the next look, also across outages of
the backend, during which the waiting goes on. Nobody who is cancelled takes others with him.
"""

from __future__ import annotations

from functools import partial
from math import inf
from typing import TYPE_CHECKING, Final, final

from anyio import CancelScope, current_time, move_on_after

from aiopatterns.backends.queue import MAX_BATCH
from aiopatterns.core.clock import sleep
from aiopatterns.core.errors import (
    BackendError,
    BackendUnavailableError,
    ClosedError,
    JobCancelledError,
    JobNotFoundError,
)
from aiopatterns.core.waiters import Waiters

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiopatterns.backends.queue import Outcome, Queue, QueueEvent

__all__ = ["ENDED", "Results", "cancelled", "not_found"]

# Seconds from one look to the next while nothing is told; they double.
_FIRST_LOOK: Final = 0.25
_LAST_LOOK: Final = 5.0
# Seconds for which the watcher stays when nobody waits any more.
_LINGER: Final = 5.0
# Seconds until the watcher tries again after an error.
_AGAIN: Final = 0.5
#: States of jobs that have ended.
ENDED: Final = ("done", "dead", "cancelled")


@final
class _Wait:
    """Those who wait for one job, and the answer once it is there."""

    __slots__ = ("answer", "line", "waiting")

    def __init__(self) -> None:
        self.line = Waiters()
        self.waiting = 0
        # Gives the outcome or raises, an error of his own to each.
        self.answer: Callable[[], Outcome] | None = None


@final
class Results:
    """Outcomes of the jobs of one store, for all that wait.

    Args:
        queue: The queue's name, for errors.
        store: Where the jobs are.
    """

    __slots__ = ("_called", "_closed", "_due", "_queue", "_scope", "_store", "_waits")

    def __init__(self, queue: str, store: Queue) -> None:
        self._queue = queue
        self._store = store
        self._waits: dict[str, _Wait] = {}
        # Jobs to look at: those of which an end was told, with that, and those to ask about.
        self._due: dict[str, str | None] = {}
        self._called = Waiters()  # the two tasks wait here for somebody to wait
        self._scope: CancelScope | None = None  # of the watcher while it watches
        self._closed = False

    async def wait(self, job_id: str) -> Outcome:
        """Wait until ``job_id`` has ended.

        Raises:
            JobNotFoundError: There is no such job, or its outcome is not kept.
            JobCancelledError: It was cancelled.
            ClosedError: The queue was closed meanwhile.
            BackendError: The backend refuses to tell.

        Cancellation: leaves nothing behind.
        """
        wait = self._join(job_id)
        try:
            while wait.answer is None:
                await wait.line.wait()
        finally:
            self._leave(job_id, wait)
        return wait.answer()

    def close(self) -> None:
        """Tell all that wait that the queue was closed; nobody waits here any more."""
        self._closed = True
        for wait in self._waits.values():
            self._answer(wait, partial(_raised, partial(_closed, self._queue)))

    async def look(self) -> None:
        """Look at what is due, for ever."""
        pause = _FIRST_LOOK
        while True:
            if not self._waits:
                self._due.clear()
                await self._called.wait()
                pause = _FIRST_LOOK
                continue
            if not self._due:
                with move_on_after(pause):
                    await self._called.wait()
                    pause = _FIRST_LOOK
                    continue
                pause = min(2 * pause, _LAST_LOOK)
                self._look_at_all()
            await self._look_once()

    async def watch(self) -> None:
        """Listen to the store while somebody waits, for ever."""
        while True:
            while not self._waits:
                await self._called.wait()
            with CancelScope() as scope:
                self._scope = scope
                try:
                    await self._listen()
                except BackendError:
                    pass  # the looks go on, and so does the next try to listen
                finally:
                    self._scope = None
                await sleep(_AGAIN)

    def _join(self, job_id: str) -> _Wait:
        if self._closed:
            raise _closed(self._queue)
        wait = self._waits.get(job_id)
        if wait is None:
            wait = self._waits[job_id] = _Wait()
            self._due[job_id] = None
        wait.waiting += 1
        if self._scope is not None:
            self._scope.deadline = inf
        self._called.wake_all()
        return wait

    def _leave(self, job_id: str, wait: _Wait) -> None:
        wait.waiting -= 1
        if not wait.waiting:
            del self._waits[job_id]
            self._due.pop(job_id, None)
        self._rest()

    def _rest(self) -> None:
        """Let the watcher go, unless somebody comes soon."""
        if not self._waits and self._scope is not None:
            self._scope.deadline = current_time() + _LINGER

    def _answer(self, wait: _Wait, answer: Callable[[], Outcome]) -> None:
        wait.answer = answer
        wait.line.wake_all()

    async def _listen(self) -> None:
        async with self._store.watch() as events:
            self._rest()
            self._look_at_all()  # what ended before the watch began was not told
            self._called.wake_all()
            async for event in events:
                self._hear(event)

    def _hear(self, event: QueueEvent) -> None:
        if event.kind == "gap":
            self._look_at_all()
        elif event.kind in ENDED and event.id in self._waits:
            self._due[event.id] = event.kind
        else:
            return
        self._called.wake_all()

    def _look_at_all(self) -> None:
        for job_id in self._waits:
            self._due.setdefault(job_id, None)

    async def _look_once(self) -> None:
        """Look at what is due, at most as many as one call may carry."""
        due = dict(list(self._due.items())[:MAX_BATCH])
        for job_id in due:
            del self._due[job_id]
        try:
            await self._ask(due)
        except BackendUnavailableError:
            await sleep(_AGAIN)
            self._look_at_all()
        except BackendError as error:
            for job_id in due:
                self._settle(job_id, partial(_raised, partial(type(error), str(error))))

    async def _ask(self, due: dict[str, str | None]) -> None:
        """Ask where the jobs are, then how those have ended that have."""
        asked = [job_id for job_id, told in due.items() if told is None]
        states = await self._store.states(asked) if asked else {}
        ended = {job_id: told or states[job_id] for job_id, told in due.items()}
        ended = {job_id: state for job_id, state in ended.items() if state in ENDED}
        outcomes = await self._store.outcomes(list(ended)) if ended else {}
        for job_id, state in ended.items():
            outcome = outcomes.get(job_id)
            if outcome is not None:
                self._settle(job_id, partial(_given, outcome))
            elif state == "cancelled":
                self._settle(job_id, partial(_raised, partial(cancelled, job_id)))
            elif job_id in states:
                self._lose(job_id)
            else:  # told, and gone already: where is it?
                self._due.setdefault(job_id, None)
        for job_id, state in states.items():
            if state == "unknown":
                self._lose(job_id)

    def _lose(self, job_id: str) -> None:
        self._settle(job_id, partial(_raised, partial(not_found, self._queue, job_id)))

    def _settle(self, job_id: str, answer: Callable[[], Outcome]) -> None:
        wait = self._waits.get(job_id)
        if wait is not None:
            self._answer(wait, answer)


def cancelled(job_id: str) -> JobCancelledError:
    """Return the error of a job that was cancelled."""
    return JobCancelledError(f"job {job_id} was cancelled", job_id=job_id)


def not_found(queue: str, job_id: str) -> JobNotFoundError:
    """Return the error of a job that is not there, or of which nothing is kept."""
    return JobNotFoundError(
        f"no job {job_id} in queue {queue!r}: it was never enqueued, or its result is not kept (any"
        f" more); see result_ttl",
        job_id=job_id,
    )


def _closed(queue: str) -> ClosedError:
    return ClosedError(f"JobQueue {queue!r} was closed while waiting for a result")


def _given(outcome: Outcome) -> Outcome:
    return outcome


def _raised(make: Callable[[], Exception]) -> Outcome:
    raise make()
