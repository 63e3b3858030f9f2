"""The queue in Redis: ids in lists, bodies in one hash, and one script for each verb.

All keys of a queue begin with its tag ``{ap:q:<name>}`` and so share a slot::

    :jobs      hash   id -> header, extras, body (queuewire.py)
    :lane:<p>  list   ids ready to run, for each priority
    :due       zset   priority digit and id -> ms from which on it may run
    :waits     zset   id -> how many jobs it waits for       :later  hash  id -> ms, if delayed too
    :run:<w>   set    ids that worker w holds: the fence, and what is taken back when it is dead
    :workers   zset   worker -> ms at which its lease ends   :turns  hash  worker -> last turn
    :tries     hash   id -> failed attempts; a first success writes nothing
    :suspects  zset   id -> since when; waiting              :marked hash  the same, until settled
    :res:<id>  string outcome, lives as long as it was asked to
    :dead      zset   id -> ms of its death                  :letters hash id -> its letter
    :ctl       hash   paused; appointed (who is to run dry for the suspects)
    :stop      set    running ids that are to be cancelled   :prog   hash  id -> fraction
    :kids:<id> zset   who waits for id: 1 strictly, 0 for any end
    :ended     zset   ended ids whose kids are not all told yet: 1 well, 0 not
    :uniq      hash   key -> mode, id of its job             :last   hash  key -> keep_last job begun
    :win:<key> string throttle window
    :busy      hash   bucket -> how many run                 :rate:<b> string  spent, promised
    :park:<b>  zset   ids held back by b, in order           :parked hash  id -> bucket
    :ranks     hash   id -> rank among the held back         :promised set ids with a turn by rate
    :gone      hash   lane and id -> entries to be skipped
    :wake      zset   at most one member: there is work      :wake:<w> zset  worker w is wanted
    :watch     string somebody listens to events

Keys that a plain job does not need do not exist while nobody needs them, and a script asks for
several at once, so the way from enqueue to result is a handful of commands for a whole batch.
What each verb does is said in ``memory/queuemachine.py``, which is the same machine.

**Waking.** ``:wake`` exists when a step or an enqueue has left work behind and nobody took the
hint yet. An idle worker blocks on it (BZPOPMIN) together with a key of its own, so Redis wakes
exactly one. That one's next step sets it again if work remains, and removes it if not. A due time
that comes before all others rings too, for somebody must sleep no longer than until then, and so
does a worker that fills up while something is due. Who gives up waiting cannot know whether the
hint was taken on its behalf, so it rings again. When the lease of another worker may have ended an
idle worker gets up by itself, so the jobs of the dead are taken back in time.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Any, Final, final

from anyio import CancelScope, move_on_after

from aiopatterns.backends.names import check_name, escaped, milliseconds
from aiopatterns.backends.queue import MAX_BATCH, Counts, Page
from aiopatterns.backends.queuechecks import (
    check_ids,
    check_jobs,
    check_page,
    check_turn,
    check_wait,
)
from aiopatterns.backends.queueevents import WATCH_LIFE, Watch
from aiopatterns.backends.redis import queuewire
from aiopatterns.backends.redis.pubsub import RedisPubSub
from aiopatterns.backends.redis.queuekeeper import Keeper
from aiopatterns.backends.redis.scripts import Script
from aiopatterns.core.clock import monotonic

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

    from aiopatterns.backends.queue import (
        ClaimedJob,
        Enqueued,
        JobState,
        NewJob,
        Outcome,
        Turn,
        Turned,
    )
    from aiopatterns.backends.redis.client import RedisClient
    from aiopatterns.backends.redis.line import Line

__all__ = ["RedisQueue"]

# Milliseconds for which a worker that is called, or gave up waiting, may come back for the call.
_CALL: Final = 5_000
# Seconds: one blocking command blocks no longer; the answer may come that much later; and a
# cancelled wait takes that long at most to hand its wake-up on.
_LONGEST_BLOCK: Final = 30.0
_SLACK: Final = 5.0
_HAND_ON: Final = 2.0
# Workers of which is remembered what their last step told; one process has few.
_REMEMBERED: Final = 1_024
_UNSEEN: Final = (False, math.inf)

_ENQUEUE: Final = Script("queue_enqueue")
_STEP: Final = Script("queue_step")
_HELD: Final = Script("queue_held")
_CANCEL: Final = Script("queue_cancel")
_LOOK: Final = Script("queue_look")
_PAGE: Final = Script("queue_page")
_MANAGE: Final = Script("queue_manage")
_WAKE: Final = Script("queue_wake")


@final
class RedisQueue:
    """The protocol ``Queue`` in Redis.

    Args:
        client: The connections.
        name: The queue's name.
    """

    __slots__ = ("_channel", "_client", "_idle", "_seen", "_tag", "name")

    def __init__(self, client: RedisClient, name: str) -> None:
        self.name: str = check_name("name", name)
        self._client = client
        self._tag = client.tag("q", escaped(name, "}"))
        self._channel = client.key("q", name)
        self._idle: list[Line] = []  # connections on which nobody waits now
        # Of each worker: whether it could take no more, and when a lease of another may end.
        self._seen: OrderedDict[str, tuple[bool, float]] = OrderedDict()

    async def enqueue(self, jobs: Sequence[NewJob]) -> list[Enqueued]:
        """Add ``jobs`` in order; each is added or recognised. 1 round trip."""
        plain = check_jobs(jobs)
        if not jobs:
            await self._client.read_each([])
            return []
        words = queuewire.enqueue_words(self._channel, jobs, plain=plain)
        reply = await self._client.run(_ENQUEUE, [self._tag], words, repeatable=True)
        return queuewire.enqueued(reply, jobs)

    async def step(self, turn: Turn) -> Turned:
        """Settle, renew, promote, take back, limit and claim, atomically. 1 round trip."""
        check_turn(turn)
        words = queuewire.turn_words(self._channel, turn)
        reply = await self._client.run(_STEP, [self._tag], words)
        turned = queuewire.turned(reply)
        self._remember(turn, turned, queuewire.next_end(reply))
        return turned

    async def held(self, worker: str) -> list[ClaimedJob]:
        """Return what ``worker`` holds now. 1 round trip."""
        check_name("worker", worker)
        flat = await self._client.run(_HELD, [self._tag], [worker], repeatable=True)
        return queuewire.held(flat)

    async def wait(self, worker: str, *, timeout: float) -> bool:
        """Wait until there may be work, or ``worker`` is wanted; False after ``timeout`` seconds.

        Cancellation: hands the wake-up on, which takes one more round trip.
        """
        check_wait(worker, timeout)
        full, look = self._seen.get(worker, _UNSEEN)
        deadline = min(monotonic() + timeout, look)
        line = self._idle.pop() if self._idle else self._client.line(f"queue {self.name}")
        try:
            while True:
                left = min(max(deadline - monotonic(), 0.001), _LONGEST_BLOCK)
                if await self._block(line, worker, left, full=full):
                    return True
                if monotonic() >= deadline:
                    return deadline == look
        except BaseException:
            await self._hand_on(worker)
            raise
        finally:
            self._idle.append(line)

    def keeper(self, worker: str, *, lease: float) -> Keeper:
        """Return a function for another thread that renews the lease of ``worker``."""
        check_name("worker", worker)
        route = self._client.route()
        home = route.home(("EVAL", "", 1, self._tag))
        locate, life = partial(route.locate, home), milliseconds("lease", lease)
        return Keeper(self._client.target, locate, tag=self._tag, worker=worker, lease=life)

    async def cancel(self, ids: Collection[str]) -> dict[str, JobState]:
        """Cancel jobs; return the state of each afterwards. 1 round trip for each 500."""
        check_ids(ids)
        states: dict[str, JobState] = {}
        for batch in _batches(list(dict.fromkeys(ids))):
            left: int = 1
            asked: list[str] = batch
            while left:
                words: list[str | int] = [self._channel, _CALL, *asked]
                found, left = await self._client.run(_CANCEL, [self._tag], words, repeatable=True)
                states.update(zip(asked, (each.decode() for each in found), strict=True))
                asked = []
        return states

    async def states(self, ids: Collection[str]) -> dict[str, JobState]:
        """Return the state of each of ``ids``. 1 round trip for each 500."""
        check_ids(ids)
        states: dict[str, JobState] = {}
        for batch in _batches(list(ids)):
            found = await self._look("states", *batch)
            states.update(zip(batch, (each.decode() for each in found), strict=True))
        return states

    async def outcomes(self, ids: Collection[str]) -> dict[str, Outcome]:
        """Return how those of ``ids`` ended that are kept. 1 round trip for each 500."""
        check_ids(ids)
        outcomes: dict[str, Outcome] = {}
        for batch in _batches(list(ids)):
            for job, record in zip(batch, await self._look("outcomes", *batch), strict=True):
                if record:
                    outcomes[job] = queuewire.outcome(record)
        return outcomes

    async def progress(self, id: str) -> float | None:
        """Return the fraction that the running job last told, or None. 1 round trip."""
        check_name("id", id)
        found = await self._client.read("HGET", f"{self._tag}:prog", id)
        return None if found is None else float(found)

    async def counts(self) -> Counts:
        """Return how many jobs are where. 1 round trip."""
        queued, scheduled, waiting, running, dead, alive, paused = await self._look("counts")
        ids = frozenset(each.decode() for each in alive)
        return Counts(queued, scheduled, waiting, running, dead, ids, bool(paused))

    async def page(self, state: JobState, *, cursor: str | None = None, limit: int = 100) -> Page:
        """Return jobs that are queued, scheduled, waiting, running or dead. 1 round trip."""
        first = check_page(state, cursor, limit)
        most = min(limit, MAX_BATCH)
        words = [state, first, most]
        flat, more = await self._client.run(_PAGE, [self._tag], words, repeatable=True)
        return Page(queuewire.page(state, flat), str(first + most) if more else None)

    async def requeue(self, ids: Collection[str]) -> int:
        """Queue dead letters again; return how many. 1 round trip for each 500."""
        check_ids(ids)
        return sum([await self._manage("requeue", *batch) for batch in _batches(list(ids))])

    async def purge(self, ids: Collection[str] | None = None) -> int:
        """Remove dead letters, by default all; return how many. 1 round trip for each 500."""
        if ids is not None:
            check_ids(ids)
            return sum([await self._manage("purge", *batch) for batch in _batches(list(ids))])
        total, left = 0, 1
        while left:
            removed, left = await self._manage("purge_all")
            total += removed
        return total

    async def pause(self, *, paused: bool = True) -> None:
        """Give out nothing, or go on. 1 round trip."""
        await self._manage("pause", "1" if paused else "0")

    def watch(self) -> Watch:
        """Iterate over what happens to jobs from now on."""
        return Watch(RedisPubSub(self._client, kind="q"), self.name, self._watched)

    async def _watched(self) -> None:
        """Let the scripts tell what happens for a while; they stop by themselves."""
        life = milliseconds("life", WATCH_LIFE)
        await self._client.write("SET", f"{self._tag}:watch", 1, "PX", life)

    async def _block(self, line: Line, worker: str, seconds: float, *, full: bool) -> bool:
        """Wait for a call, or unless the worker is full for work."""
        keys = [f"{self._tag}:wake:{worker}"]
        if not full:
            keys.append(f"{self._tag}:wake")
        return await line.call("BZPOPMIN", *keys, seconds, timeout=seconds + _SLACK) is not None

    async def _hand_on(self, worker: str) -> None:
        """Wake another in place of ``worker``, whose wait was given up."""
        with suppress(Exception), CancelScope(shield=True), move_on_after(_HAND_ON):
            await self._client.run(_WAKE, [self._tag], [worker, _CALL], repeatable=True)

    def _remember(self, turn: Turn, turned: Turned, next_end: float | None) -> None:
        """Note what the next wait of the worker goes by."""
        full = len(turned.claimed) >= turn.free or turned.quarantine
        full = full or any(each.alone for each in turned.claimed)
        look = math.inf if next_end is None or full else monotonic() + next_end
        self._seen[turn.worker] = full, look
        self._seen.move_to_end(turn.worker)
        if len(self._seen) > _REMEMBERED:
            self._seen.popitem(last=False)

    async def _look(self, *words: str) -> Any:
        return await self._client.run(_LOOK, [self._tag], words, repeatable=True)

    async def _manage(self, *words: str) -> Any:
        words = (self._channel, *words)
        return await self._client.run(_MANAGE, [self._tag], words, repeatable=True)


def _batches(ids: list[str]) -> list[list[str]]:
    return [ids[first : first + MAX_BATCH] for first in range(0, len(ids), MAX_BATCH)]
