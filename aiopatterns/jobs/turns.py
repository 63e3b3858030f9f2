"""The step loop: everything a worker says to one store, in one step after the other.

Exactly one step is in flight. What comes to an end meanwhile collects; when the answer is there,
the next step goes out at once with all of it, and asks for all places that are free. So the loop
clocks itself: one job that ends on a quiet queue is settled right away, and at full load a step
carries a hundred settlements and brings a hundred jobs::

         .-------------------------------------------------------------.
         v                                                             |
    anything to say? --no--> park, until a job ends, a job is due,     |
         | yes               the lease is to be renewed, or the        |
         v                   listener was woken by the store           |
       step --answer--> settled, stale, cancelled, claimed ------------'
         |                                                             ^
         '--error--> wait a little, say the same again (same number),  |
                     ask what is held, adopt what was unknown ---------'

Guarantees:

* A settlement is kept until the store has answered for it. It is sent again under the same number
  with the same jobs, so it is applied once, however often the answer is lost.
* What the store says is true: a job that it has taken back is cancelled here and its result is
  never written; one that it gave out and whose answer was lost is adopted.
* An outage ends nothing: jobs run on, and the loop asks again after :data:`CALM` seconds at most.
* An idle worker sends nothing but one step in :data:`WATCH` seconds, in which it would notice the
  end of another one's lease; it is woken by the store.

Not guaranteed: that a job runs once. See the crash table of :mod:`aiopatterns.backends.queue`.
"""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING, Final, final

from aiopatterns.backends.queue import MAX_BATCH, Settled, Turn
from aiopatterns.core.clock import Home, call_later, monotonic, rng, sleep
from aiopatterns.core.errors import BackendError
from aiopatterns.core.telemetry import emit, listening
from aiopatterns.core.waiters import Gate
from aiopatterns.jobs.hold import Cut, Hold
from aiopatterns.jobs.workerevents import BackendRecovered, BackendTroubled
from aiopatterns.resilience.backoff import Exponential

if TYPE_CHECKING:
    from collections.abc import Callable

    from aiopatterns.backends.queue import ClaimedJob, How, Queue, Turned
    from aiopatterns.core.clock import Parked
    from aiopatterns.jobs.shop import Shop
    from aiopatterns.jobs.slots import Slots

__all__ = ["AGAIN", "CALM", "MAX_BYTES", "WATCH", "Turns"]

#: The longest wait before a step is tried again, in seconds.
CALM: Final = 1.5
#: Seconds between two steps of a worker that could take a job; a lease ends unnoticed no longer.
WATCH: Final = 0.8
#: Results that one step carries, in bytes, unless one alone is larger.
MAX_BYTES: Final = 4_194_304

#: The waits between tries.
AGAIN: Final = Exponential(initial=0.05, factor=2, cap=CALM, jitter="equal")
# A store that says there is more, and gives nothing, is asked less and less often; not too seldom,
# for it may be putting off jobs above a rate, a step's worth at a time, and others are behind them.
_FRUITLESS: Final = Exponential(initial=0.001, factor=2, cap=0.05, jitter="equal")
# How long one wait on the store's side lasts; its end costs one command.
_WAIT: Final = 10.0


@final
class Turns:
    """The dialogue of one worker with one store.

    Args:
        store: The queue, or a partition of one.
        worker: Id of the worker, new at each start.
        lease: Seconds for which the worker counts as alive after a step.
        slots: Its places, shared with its other loops.
        shop: The queue it belongs to, with the worker's figures for it.
        admit: Called with each job that was claimed.
        home: Whether work from here goes before work from a loop that is not at home.
    """

    __slots__ = (
        "_admit",
        "_ahead",
        "_asked",
        "_bytes",
        "_due_at",
        "_flying",
        "_fruitless",
        "_gate",
        "_hand_on",
        "_home",
        "_not_before",
        "_number",
        "_progress",
        "_renew_at",
        "_resting",
        "_retries",
        "_seat",
        "_settled",
        "_slots",
        "_suspect",
        "_wants",
        "held",
        "home",
        "lease",
        "shop",
        "store",
        "worker",
    )

    def __init__(
        self,
        store: Queue,
        *,
        worker: str,
        lease: float,
        slots: Slots,
        shop: Shop,
        admit: Callable[[Hold], object],
        home: bool = True,
    ) -> None:
        self.store: Queue = store
        self.worker: str = worker
        self.shop: Shop = shop
        self.home: bool = home
        self.held: dict[str, Hold] = {}
        self._ahead: float | None = None  # the server's clock less this process's
        self.lease: float = lease
        self._slots = slots
        self._admit = admit
        self._home = Home()
        self._gate = Gate(self._home)
        self._seat: Parked | None = None
        self._resting = False  # parked, with places for jobs
        self._number = 0
        self._flying: Turn | None = None  # sent, not answered
        self._asked = 0
        self._settled: list[Settled] = []
        self._bytes = 0
        self._progress: dict[str, float] = {}
        self._retries: dict[str, float] = {}
        self._suspect: Hold | None = None
        self._wants = self._hand_on = True  # nobody knows what there is: the first step asks
        self._fruitless = 0
        self._not_before = self._renew_at = -inf
        self._due_at = inf

    # ----------------------------------------------------------- what jobs and the worker say

    def settle(
        self,
        hold: Hold,
        how: How,
        data: bytes = b"",
        *,
        delay: float = 0.0,
        counted: bool = True,
    ) -> bool:
        """Say how a job has ended, in the next step; False if it is not ours any more."""
        if self.held.get(hold.id) is not hold:
            return False
        hold.finished = True
        self._settled.append(Settled(hold.id, how, data, delay, counted))
        self._bytes += len(data)
        self.signal()
        return True

    def note_retry(self, hold: Hold, delay: float) -> None:
        """Remember that a job comes back, for who waits until all is done."""
        now = monotonic()
        if len(self._retries) >= MAX_BATCH:
            self._retries = {job: at for job, at in self._retries.items() if at > now}
        self._retries[hold.id] = now + delay

    def tell(self, hold: Hold, fraction: float) -> None:
        """Say how far a job is, in the next step."""
        if self.held.get(hold.id) is hold:
            self._progress[hold.id] = fraction
            self.signal()

    def signal(self) -> None:
        """Let the loop look again."""
        if self._seat is not None and not self._seat.done():
            self._seat.set_result(None)

    @property
    def retrying(self) -> bool:
        """Whether a job that failed here comes back later."""
        now = monotonic()
        return any(at > now for at in self._retries.values())

    @property
    def quiet(self) -> bool:
        """Whether nothing is held and no work is known of."""
        return not self.held and not self._wants and self._flying is None

    def keeper(self) -> Callable[[], bool] | None:
        """Return what renews the lease from another thread; None if nobody could take the jobs."""
        return self.store.keeper(self.worker, lease=self.lease)

    def server_now(self) -> float | None:
        """Return the server's time, as far as the last answer tells; None before it."""
        return None if self._ahead is None else self._ahead + monotonic()

    # ------------------------------------------------------------------------------- the tasks

    async def run(self) -> None:
        """Take one step after the other, until the worker ends and nothing is held."""
        while not (self._slots.closed and not self.held):
            if self._must_speak():
                await self._speak()
            else:
                await self._park()

    async def listen(self) -> None:
        """Wait on the store's side while there are places, and wake the loop."""
        failures = 0
        while True:
            while not self._resting:
                await self._gate
            try:
                woken = await self.store.wait(self.worker, timeout=_WAIT)
                failures = 0
            except BackendError:
                failures += 1
                await sleep(AGAIN.delay(failures, rng=rng()))
                woken = True  # the loop finds out what is wrong
            self._hear(woken=woken)

    def _hear(self, *, woken: bool) -> None:
        """The wait on the store's side is over: look at once, if it was woken."""
        if woken:
            self._wants = self._hand_on = True
            self._resting = False
            self.signal()

    async def leave(self) -> None:
        """Say what there is still to say, and give back what is held; once, whatever happens.

        Raises:
            BackendError: Nobody answers; the lease ends by itself.
        """
        self._slots.closed = True
        if self._flying is not None:
            self._end_flight()
            self._apply(await self.store.step(self._flying._replace(free=0)))
        while len(self._settled) > MAX_BATCH or self._bytes > MAX_BYTES:
            self._apply(await self.store.step(self._compose()))
        for _ in range(0, self._slots.limit, MAX_BATCH):  # one step gives back so many
            answer = await self.store.step(self._compose()._replace(leave=True))
            if not answer.more:
                break
        self.held.clear()

    # ----------------------------------------------------------------- private core: speaking

    def _must_speak(self) -> bool:
        """Whether a step goes out now."""
        if self._settled or self._progress or self._hand_on:
            return True
        now = monotonic()
        if now >= self._renew_at:
            return True
        if now >= self._due_at:
            self._due_at = inf
            self._want()
        return self._wants and now >= self._not_before and self._slots.grant(self) > 0

    async def _speak(self) -> None:
        """Take one step; after an error, find out what is so."""
        try:
            answer = await self.store.step(self._compose())
        except BackendError as error:
            await self._recover(error)
        else:
            self._apply(answer)

    def _compose(self) -> Turn:
        """Make the next turn, and note that it is on its way."""
        asked = min(self._slots.grant(self), MAX_BATCH)
        if asked:
            self._slots.reserve(asked)
            self._slots.served(self)
            self._wants = False
        else:  # the store takes us for full, and wakes us no more: ask as soon as there is a place
            self._want()
        self._asked, self._hand_on = asked, False
        self._number += 1
        progress, self._progress = self._progress, {}
        self._flying = turn = Turn(
            self.worker, self._number, self.lease, self._batch(), asked, progress or None
        )
        return turn

    def _batch(self) -> list[Settled]:
        """Take the settlements for one step."""
        settled = self._settled
        if len(settled) <= MAX_BATCH and self._bytes <= MAX_BYTES:
            self._settled, self._bytes = [], 0
            return settled
        count, size = 1, len(settled[0].data)
        for each in settled[1:MAX_BATCH]:
            size += len(each.data)
            if size > MAX_BYTES:
                size -= len(each.data)
                break
            count += 1
        self._settled = settled[count:]
        self._bytes -= size
        return settled[:count]

    def _end_flight(self) -> None:
        """The answer to a turn is lost: what it asked for is not reserved any more."""
        if self._asked:
            asked, self._asked = self._asked, 0
            self._slots.arrive(asked, 0)
            self._want()

    def _apply(self, answer: Turned) -> None:
        """Do what the answer says."""
        turn, self._flying = self._flying, None
        assert turn is not None
        for each in turn.settled:
            self.held.pop(each.id, None)
        self.shop.ledger.stale += len(answer.stale)
        if answer.reaped:
            self._lose([*self.held.values()])
        for job in answer.cancels:
            if (hold := self.held.get(job)) is not None:
                hold.interrupt(Cut.CANCEL)
        asked, self._asked = self._asked, 0
        self._slots.arrive(asked, len(answer.claimed))
        for claimed in answer.claimed:
            self._adopt(claimed)
        self._isolate(wanted=answer.quarantine)
        self._schedule(answer, asked, fruitful=bool(answer.claimed or turn.settled))

    def _isolate(self, *, wanted: bool) -> None:
        """Keep the other places empty while a suspect runs, or is to run."""
        suspect = self._suspect
        if suspect is not None and self.held.get(suspect.id) is not suspect:
            suspect = self._suspect = None
        if wanted or suspect is not None or self in self._slots.exclusive:
            self._slots.isolate(self, wanted=wanted or suspect is not None)

    def _schedule(self, answer: Turned, asked: int, *, fruitful: bool) -> None:
        """Note when to speak again."""
        now = monotonic()
        self.shop.ledger.steps += 1
        self._ahead = answer.now - now
        self._due_at = inf if answer.next_due is None else now + answer.next_due
        self._renew_at = now + self.lease / 3
        if answer.more or answer.quarantine:
            self._want()
        if self._slots.open:
            self._renew_at = min(self._renew_at, now + WATCH)
            if len(answer.claimed) >= asked:  # it could have been more
                self._want()
        if fruitful or not (asked and answer.more):
            self._fruitless = 0
        else:
            self._fruitless += 1
            self._not_before = now + _FRUITLESS.delay(self._fruitless, rng=rng())

    def _adopt(self, job: ClaimedJob) -> None:
        """Take a job that the store has given out."""
        hold = Hold(self, job.id, job.body, job.attempt, alone=job.alone)
        self.held[job.id] = hold
        if job.alone:
            self._suspect = hold
            self._slots.isolate(self, wanted=True)
        if self._retries:
            self._retries.pop(job.id, None)
        self._admit(hold)

    def _lose(self, holds: list[Hold]) -> None:
        """Give up jobs that another worker has, or will have; what they come to does not count."""
        for hold in holds:
            del self.held[hold.id]
            hold.interrupt(Cut.LOST)
        self._settled = [each for each in self._settled if each.id in self.held]
        self._bytes = sum(len(each.data) for each in self._settled)
        self.shop.ledger.lost += len(holds)

    def _want(self) -> None:
        self._wants = True
        self._slots.want(self)

    # ------------------------------------------------------------------- private core: waiting

    async def _park(self) -> None:
        """Wait until there is something to say."""
        self._seat = seat = self._home.future()
        now, at = monotonic(), min(self._renew_at, self._due_at)
        if self._wants:
            at = min(at, self._slots.patient_until(self))
            at = min(at, self._not_before if self._not_before > now else inf)
        if self._slots.open and not self._wants:  # else a step goes out soon, and tells more
            self._resting = True
            self._gate.open()
        timer = call_later(max(at - now, 0.0), self.signal)
        try:
            await seat
        finally:
            timer.cancel()
            self._seat = None
            self._resting = False

    async def _recover(self, error: BackendError) -> None:
        """Ask until the store answers, then bring both sides together."""
        failures, since = 1, monotonic()
        self.shop.ledger.outages += 1
        if listening():
            emit(BackendTroubled(self.store.name, self.worker, error))
        self._end_flight()
        held: list[ClaimedJob] | None = None
        while held is None:
            await sleep(AGAIN.delay(failures, rng=rng()))
            try:
                if self._flying is not None:
                    self._apply(await self.store.step(self._flying._replace(free=0)))
                held = await self.store.held(self.worker)
            except BackendError:
                failures += 1
        if listening():
            seconds = monotonic() - since
            emit(BackendRecovered(self.store.name, self.worker, failures, seconds))
        self._reconcile(held)

    def _reconcile(self, held: list[ClaimedJob]) -> None:
        """Adopt what the lost answer brought; give up what is not held any more."""
        theirs = {each.id: each.attempt for each in held}
        self._lose([each for each in self.held.values() if theirs.get(each.id) != each.attempt])
        unknown = [each for each in held if each.id not in self.held]
        self._slots.arrive(0, len(unknown))
        for each in unknown:
            self._adopt(each)
