"""A stage that works on several items at once, or on one that may have to be tried again.

Long-lived workers share the items of the stage; there is never a task for each item::

    push(item) --> [ ready ] --> worker 1..n --> [ finished, in order ] --> emitter --> down
        |             ^   ^         |
        | key busy    |   |  next   | retry: waits outside, holds no worker
        v             |   | of key  v
    [ behind its key ]+   `------[ timer ]
    |<------------------ at most `workers + capacity` items ------------------->|

Guarantees:

* Never more than ``workers`` calls run at once, also with retries. An item that waits for its
  retry holds no worker.
* ``ordered=True``: results are passed on in the order of the input. A slow item holds back what
  came after it, but workers go on until the stage is full. ``ordered=False``: as they are ready.
* Items of equal ``key`` run one at a time, in the order of the input, retries included, and are
  passed on in that order; others overtake them. A key costs memory only while it has items here.
* A result always has its place, reserved when the item came in: no finished work is lost because
  nobody has room for it.
* A function sees the context variables that were in force where the run was started, and none
  that another item has set.

Not guaranteed: with ``workers=1`` and a retry, the next item may run while the first waits; give a
constant key where that must not be.
"""

from __future__ import annotations

from collections import deque
from contextlib import nullcontext
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, final

from aiopatterns.core.clock import call_later, monotonic, yield_now
from aiopatterns.core.outcome import Err
from aiopatterns.core.types import as_async_iterator, close
from aiopatterns.core.waiters import Waiters, cancel_count
from aiopatterns.flow.calls import given_up
from aiopatterns.flow.isolation import Isolation
from aiopatterns.flow.offload import Offload
from aiopatterns.flow.stage import Node, failure, is_stray_cancel
from aiopatterns.flow.tally import Tally, is_timed
from aiopatterns.resilience.attempts import again
from aiopatterns.resilience.timeout import Timeout

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Hashable, Sequence

    from aiopatterns.core.outcome import Outcome
    from aiopatterns.flow.stage import Spawn, Stage
    from aiopatterns.resilience.retry import Retry

    _Run: TypeAlias = Callable[[Any], Coroutine[Any, Any, Any]]

__all__ = ["Lanes"]


_NO_KEY: Final = object()
# Functions that never suspend must not starve the loop: one forced turn in this many items.
_TURN: Final = 64


class _Timer(Protocol):
    def cancel(self) -> object: ...


@final
class _Entry:
    """One item on its way through the stage; ``outputs`` is None until it has finished.

    ``attempts`` counts those that have begun, and the one that it waits for.
    """

    __slots__ = ("attempts", "began", "index", "item", "key", "outputs")

    def __init__(self, item: Any, index: int) -> None:
        self.item = item
        self.index = index
        self.attempts = 0
        self.outputs: Sequence[Any] | None = None

    #: When the first attempt began; set where there may be others.
    began: float
    #: Set when the item was admitted, and only if the stage has a key.
    key: Hashable


@final
class Lanes(Node):
    """The runtime of one concurrent stage.

    Args:
        stage: The stage.
        down: What follows.
        capacity: How many items it holds besides those that its workers have.
    """

    __slots__ = (
        "_behind",
        "_down",
        "_ended",
        "_fn",
        "_held",
        "_hired",
        "_idle",
        "_key",
        "_line",
        "_news",
        "_offload",
        "_ordered",
        "_over",
        "_plain",
        "_ready",
        "_retries",
        "_retry",
        "_room",
        "_run",
        "_seen",
        "_spawn",
        "_stage",
        "_trying",
        "_width",
        "_window",
    )

    def __init__(self, stage: Stage, down: Node, *, capacity: int) -> None:
        self.tally: Tally = Tally(stage.name)
        self._stage = stage
        self._down = down
        self._fn, self._key, self._retry = stage.fn, stage.key, stage.retry
        self._ordered = stage.ordered
        self._width, self._window = stage.width, stage.width + capacity
        self._held = self._seen = self._hired = 0
        self._spawn: Spawn
        self._ended = self._over = False
        self._ready: deque[_Entry] = deque()
        self._line: deque[_Entry] = deque()
        self._behind: dict[Hashable, deque[_Entry]] = {}
        self._retries: dict[_Entry, _Timer] = {}
        self._trying: set[_Entry] = set()  # those that the retry has been told of
        self._room, self._idle, self._news = Waiters(), Waiters(), Waiters()
        lone = stage.timeout is not None or _is_bounded(stage.retry)
        self._offload: Offload | None = None
        if stage.executor is not None:
            self._offload = Offload(stage.executor, stage.fn, chunks=not lone)
        self._run: _Run = self._offload.run if self._offload else self._called
        if stage.timeout is not None:
            self._run = Timeout(stage.timeout).wrap(self._run)
        self._plain = stage.verb == "map" and stage.timeout is None and stage.retry is None

    # -- what the chain calls

    async def push(self, item: Any) -> None:
        """Take one item; see :class:`Node`."""
        self.tally.queued += 1
        while self._held >= self._window:
            await self._room.wait()
        entry = _Entry(item, self._seen)
        self._held += 1
        self._seen += 1
        if self._ordered:
            self._line.append(entry)
        if self._key is None:
            self._make_ready(entry)
            return
        entry.key = _NO_KEY
        try:
            self._admit_by_key(entry, self._key(item))
        except BaseException as error:
            problem = failure(error)
            self.tally.queued -= 1
            self.tally.started += 1
            await self._give_up(entry, problem)

    async def end(self) -> None:
        """Take the end of the input; see :class:`Node`."""
        self._ended = True
        self._news.wake()

    def start(self, spawn: Spawn) -> None:
        """Start the tasks; see :class:`Node`. Workers follow when there is work for them."""
        self._spawn = spawn
        spawn(self._emit, f"results of stage {self.tally.name}")

    def stop(self) -> None:
        """Disarm the timers, and tell the retry what is given up; see :class:`Node`."""
        for timer in self._retries.values():
            timer.cancel()
        for entry in self._trying:
            assert self._retry is not None
            self._retry.finish(entry.attempts)
        self._retries.clear()
        self._trying.clear()

    # -- tasks

    async def _work(self) -> None:
        """Run ready items, one after the other, until the stage is over."""
        isolation, asked = Isolation(), cancel_count()
        while not self._over:
            if self._offload is not None:
                await self._run_many(self._offload, isolation, asked)
            elif self._plain:
                await self._run_here(isolation, asked)
            else:
                await self._run_guarded(isolation, asked)
            await (yield_now() if self._ready else self._idle.wait())

    async def _emit(self) -> None:
        """Pass results on, in order, until the input has ended and the stage is empty."""
        isolation = Isolation()
        line, tally, push = self._line, self._down.tally, self._down.push
        turn = _TURN
        while self._held or not self._ended:
            while line and (outputs := line[0].outputs) is not None:
                line.popleft()
                for output in outputs:
                    tally.queued -= 1
                    await (isolation.call(push, output) if isolation.spoiled() else push(output))
                self._held -= 1
                if self._room.parked:
                    self._room.wake()
                turn -= 1
                if not turn:
                    turn = _TURN
                    await yield_now()
            if self._held or not self._ended:
                await self._news.wait()
        self._over = True
        self._idle.wake_all()
        await self._down.end()

    # -- one item, or several in one call

    async def _run_here(self, isolation: Isolation, asked: Callable[[], int]) -> None:
        """Run what is ready: a plain ``map``, where every step counts."""
        ready, tally, fn, spoiled = self._ready, self.tally, self._fn, isolation.spoiled
        for _ in range(_TURN):
            if not ready or (asked() and given_up()):
                break
            entry = ready.popleft()
            timed = is_timed(tally.started)
            began = monotonic() if timed else 0.0
            tally.queued -= 1
            tally.started += 1
            entry.attempts = 1
            try:
                if spoiled():
                    value = await isolation.call(self._called, entry.item)
                else:
                    value = fn(entry.item)
                    if hasattr(value, "__await__"):
                        value = await value
            except BaseException as error:
                await self._failed(entry, failure(error))
                continue
            if timed:
                tally.latency.record(monotonic() - began)
            tally.done += 1
            self._finish(entry, (value,))

    async def _run_guarded(self, isolation: Isolation, asked: Callable[[], int]) -> None:
        """Run what is ready, with retries and timeouts, or several outputs for an item."""
        for _ in range(_TURN):
            if not self._ready or (asked() and given_up()):
                break
            entry = self._ready.popleft()
            began = self._begin(entry)
            try:
                value = await isolation.call(self._attempt(entry), entry.item)
            except BaseException as error:
                await self._failed(entry, failure(error))
                continue
            self.tally.latency.record(monotonic() - began)
            await self._returned(entry, value)

    async def _run_many(
        self, offload: Offload, isolation: Isolation, asked: Callable[[], int]
    ) -> None:
        """Run what is ready in the executor, as many items in a call as pays."""
        for _ in range(_TURN):
            if not self._ready or (asked() and given_up()):
                break
            share = offload.share(len(self._ready), self._width)
            entries = [self._ready.popleft() for _ in range(share)]
            began = min(self._begin(entry) for entry in entries)
            try:
                run, items = self._attempt(entries[0]), [entry.item for entry in entries]
                outcomes = await isolation.call(run, items)
            except BaseException as error:
                outcomes = [Err(failure(error))] * share
            elapsed = (monotonic() - began) / share
            for entry, outcome in zip(entries, outcomes, strict=True):
                await self._take_over(entry, outcome, elapsed)

    async def _take_over(self, entry: _Entry, outcome: Outcome[Any], elapsed: float) -> None:
        """Go on with what an executor answered for one item."""
        if isinstance(outcome, Err):
            await self._failed(entry, failure(outcome.error))
            return
        try:
            value = await self._collected(outcome.value)
        except BaseException as error:
            await self._failed(entry, failure(error))
            return
        self.tally.latency.record(elapsed)
        await self._returned(entry, value)

    async def _called(self, item: Any) -> Any:
        """Call the function here; return its value, or the list of its outputs."""
        value = self._fn(item)
        if hasattr(value, "__await__"):
            value = await value
        return await self._collected(value)

    async def _collected(self, value: Any) -> Any:
        """Return the value of the function, or the list of its outputs."""
        if self._stage.verb != "flat_map":
            return value
        outputs = as_async_iterator("what the function of flat_map gives", value)
        try:
            return [output async for output in outputs]
        finally:
            await close(outputs)

    # -- synchronous core: where an item is

    def _admit_by_key(self, entry: _Entry, key: Hashable) -> None:
        """Make an item ready, or put it behind the items of its key that came before."""
        behind = self._behind.get(key)
        if behind is None:
            self._behind[key] = deque()
            self._make_ready(entry)
        else:
            behind.append(entry)
        entry.key = key

    def _begin(self, entry: _Entry) -> float:
        """Count one more attempt; returns the time."""
        self.tally.queued -= 1
        self.tally.started += 1
        now = monotonic()
        if not entry.attempts:
            entry.attempts = 1
            entry.began = now
            if self._retry is not None:
                self._retry.begin()
                self._trying.add(entry)
        return now

    def _outputs(self, item: Any, value: Any) -> Sequence[Any]:
        """Return what is to be passed on."""
        if self._stage.verb == "map":
            return (value,)
        if self._stage.verb == "filter":
            return (item,) if value else ()
        outputs: Sequence[Any] = value
        return outputs

    def _make_ready(self, entry: _Entry) -> None:
        """Let a worker take an item, an idle one or one more."""
        self._ready.append(entry)
        if self._idle.parked:
            self._idle.wake()
        elif self._hired < self._width:
            self._hired += 1
            self._spawn(self._work, f"stage {self.tally.name}")

    def _finish(self, entry: _Entry, outputs: Sequence[Any]) -> None:
        """Put the results of an item in line, and let the next of its key run."""
        entry.outputs = outputs
        self._down.tally.queued += len(outputs)
        if self._key is not None and entry.key is not _NO_KEY:
            self._free(entry.key)
        if not self._ordered:
            self._line.append(entry)
        if self._news.parked and self._line[0].outputs is not None:
            self._news.wake()

    def _free(self, key: Hashable) -> None:
        """Let the next item of ``key`` run; forget the key if there is none."""
        behind = self._behind[key]
        if behind:
            self._make_ready(behind.popleft())
        else:
            del self._behind[key]

    # -- ends of attempts

    def _attempt(self, entry: _Entry) -> _Run:
        """Return the function that runs the next attempt of an item."""
        return self._run if self._retry is None else partial(self._tried, self._retry, entry)

    async def _tried(self, retry: Retry, entry: _Entry, argument: Any) -> Any:
        """Run an attempt in the time that is left for all of them, so that a retry can be seen."""
        with retry.scope(entry.began) or nullcontext():
            if entry.attempts == 1:
                return await self._run(argument)
            return await again(self._run, argument)

    async def _returned(self, entry: _Entry, value: Any) -> None:
        """Pass on what the function gave, unless the retry wants something else."""
        try:
            delay = self._delay(entry, value=value)
            outputs = self._outputs(entry.item, value) if delay is None else ()
        except Exception as broken:  # the user's predicate or backoff, or the truth of a value
            await self._give_up(entry, failure(broken))
            return
        if delay is None:
            self.tally.done += 1
            self._finish(entry, outputs)
        else:
            self._pause(entry, delay)

    async def _failed(self, entry: _Entry, error: Exception) -> None:
        """Try an item again later, or give it up."""
        delay = None
        try:
            delay = self._delay(entry, error=error)
        except Exception as broken:  # the user's predicate or backoff
            error = failure(broken)
        if delay is None:
            await self._give_up(entry, error)
        else:
            self._pause(entry, delay)

    def _delay(
        self, entry: _Entry, *, error: Exception | None = None, value: object = None
    ) -> float | None:
        """Return the seconds until the next attempt, or None if this was the last."""
        retry = self._retry
        if retry is None:
            return None
        self._trying.discard(entry)
        elapsed = monotonic() - entry.began
        delay = None
        if error is None:
            delay = retry.after_result(entry.attempts, value, elapsed)
        elif is_stray_cancel(error):  # no policy is shown it
            retry.finish(entry.attempts)
        else:
            delay = retry.after_error(entry.attempts, error, elapsed)
        if delay is not None:
            self._trying.add(entry)
        return delay

    def _pause(self, entry: _Entry, delay: float) -> None:
        """Queue an item again when its time has come; it holds no worker meanwhile."""
        entry.attempts += 1
        self.tally.started -= 1
        self.tally.queued += 1
        self._retries[entry] = call_later(delay, partial(self._again, entry))

    def _again(self, entry: _Entry) -> None:
        del self._retries[entry]
        self._make_ready(entry)

    async def _give_up(self, entry: _Entry, error: Exception) -> None:
        """Do with a failed item what ``on_error`` says."""
        try:
            await self._stage.refuse(entry.item, entry.index, error, entry.attempts)
        except Exception:
            self.tally.failed += 1
            raise
        self.tally.failed += 1
        self._finish(entry, ())


def _is_bounded(retry: Retry | None) -> bool:
    """Whether the time of all attempts of an item together is bounded."""
    return retry is not None and retry.scope(0.0) is not None
